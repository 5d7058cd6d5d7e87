package wire_test

import (
	"math"
	"strings"
	"testing"

	"github.com/reto10/chat/internal/wire"
)

func TestAnIDNamesItsPlace(t *testing.T) {
	tests := []struct {
		channel, epoch string
		seq            uint64
		want           string
	}{
		{"", "e0", 0, "0-e0"},
		{"", "Abc9", 42, "42-Abc9"},
		{"news", "e", 7, "7-e-news"},
		{"a-b.c_d:e", "e", 7, "7-e-a-b.c_d:e"},
		{"-", "e", 7, "7-e--"},
		{"@ana@example.com", "e", 1, "1-e-@ana@example.com"},
		{"@auth0|123", "e", 1, "1-e-@auth0~7C123"},
		{"@a b~é", "e", 1, "1-e-@a~20b~7E~C3~A9"},
		{"c", strings.Repeat("x", 32), math.MaxUint64, "18446744073709551615-" + strings.Repeat("x", 32) + "-c"},
	}
	for _, tt := range tests {
		got := wire.FormatID(tt.channel, tt.epoch, tt.seq)
		if got != tt.want {
			t.Errorf("FormatID(%q, %q, %d) = %q, want %q", tt.channel, tt.epoch, tt.seq, got, tt.want)
		}
		channel, epoch, seq, err := wire.ParseID(got)
		if err != nil || channel != tt.channel || epoch != tt.epoch || seq != tt.seq {
			t.Errorf("ParseID(%q) = %q, %q, %d, %v", got, channel, epoch, seq, err)
		}
	}
}

func TestWhatIsNoIDIsRefused(t *testing.T) {
	for _, id := range []string{
		"", "-", "1", "1-", "-e", "a-e", "+1-e", "-1-e", "01-e", "1_0-e", "0x1-e", " 1-e", "1-e ",
		"18446744073709551616-e", "1-" + strings.Repeat("x", 33), "1-é", "1--c", "1-e-", "1-e-a b", "1-e-é",
		"1-e-~", "1-e-~4", "1-e-~41", "1-e-~7c", "1-e-~+1", "1-e-~~", "1-e-a/b", "1-e-a%20b",
	} {
		if channel, epoch, seq, err := wire.ParseID(id); err == nil {
			t.Errorf("ParseID(%q) = %q, %q, %d, want an error", id, channel, epoch, seq)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, id := range []string{"1-e", "7-e-news", "1-e-@auth0~7C123", "01-e", "1-e-~41", "1-e-~C3", "1-e--", "18446744073709551615-e-c"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		channel, epoch, seq, err := wire.ParseID(id)
		if err != nil {
			return
		}
		if got := wire.FormatID(channel, epoch, seq); got != id {
			t.Fatalf("ParseID(%q), then FormatID = %q", id, got)
		}
		if i := strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"#%&+/<>?\`, r) }); i >= 0 {
			t.Fatalf("%q is not safe in a query", id)
		}
	})
}

func FuzzFormatID(f *testing.F) {
	f.Add("", "e", uint64(0))
	f.Add("@a b~é|-", "Z9", uint64(math.MaxUint64))
	f.Add("\x00\xff", "0", uint64(1))
	f.Fuzz(func(t *testing.T, channel, epoch string, seq uint64) {
		id := wire.FormatID(channel, epoch, seq)
		c, e, s, err := wire.ParseID(id)
		if err != nil {
			if validEpoch(epoch) {
				t.Fatalf("ParseID(%q): %v", id, err)
			}
			return
		}
		if validEpoch(epoch) && (c != channel || e != epoch || s != seq) {
			t.Fatalf("ParseID(%q) = %q, %q, %d, want %q, %q, %d", id, c, e, s, channel, epoch, seq)
		}
	})
}

func validEpoch(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= 32 && strings.Trim(s, allowed) == ""
}
