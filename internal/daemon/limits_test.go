package daemon

import "testing"

func TestOpenFilesAreSharedOut(t *testing.T) {
	tests := map[string]struct {
		files, waiting int
		want           capacity
	}{
		"as many as recommended": {200_000, 2048, capacity{2048, 100_000}},
		"unknown":                {0, 2048, capacity{2048, 100_000}},
		"unknown, and no limit":  {0, 0, capacity{0, 100_000}},
		"a shell's":              {1024, 2048, capacity{256, 640}},
		"some, and no limit":     {20_000, 0, capacity{5000, 14_872}},
		"far too few":            {100, 2048, capacity{25, 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := capacityWithin(test.files, test.waiting)
			if got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}
