package load

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat/test/wstest"
)

// server makes an unmasked frame.
var server = wstest.Unmasked

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func TestParser(t *testing.T) {
	long, longer := strings.Repeat("l", 300), strings.Repeat("m", 70_000)
	tests := []struct {
		name     string
		stream   []byte
		messages []string
		controls []string // opcode and payload
	}{
		{"one", server(0x81, "a"), []string{"a"}, nil},
		{"several", join(server(0x81, "a"), server(0x82, "b")), []string{"a", "b"}, nil},
		{"16 bit length", server(0x81, long), []string{long}, nil},
		{"64 bit length", server(0x81, longer), []string{longer}, nil},
		{"joined by lines", server(0x81, "a\nbc\nd"), []string{"a", "bc", "d"}, nil},
		{"line ended", server(0x81, "a\nb\n"), []string{"a", "b"}, nil},
		{"empty", server(0x81, ""), nil, nil},
		{"fragments", join(server(0x01, "ab"), server(0x00, "c\nd"), server(0x80, "e")), []string{"abc", "de"}, nil},
		{"control between fragments", join(server(0x01, "a"), server(0x89, "p"), server(0x80, "b")), []string{"ab"}, []string{"\x09p"}},
		{"close", join(server(0x81, "a"), server(0x88, "\x0f\xa3slow")), []string{"a"}, []string{"\x08\x0f\xa3slow"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 7, 1000, len(tt.stream)} {
				var p parser
				var messages, controls []string
				for chunk := range slices.Chunk(tt.stream, step) {
					b := append(slices.Clone(p.part), chunk...)
					p.part = p.part[:0]
					err := p.feed(b,
						func(m []byte) { messages = append(messages, string(m)) },
						func(op byte, m []byte) { controls = append(controls, string(op)+string(m)) })
					if err != nil {
						t.Fatalf("in steps of %d: %v", step, err)
					}
				}
				if !slices.Equal(messages, tt.messages) || !slices.Equal(controls, tt.controls) {
					t.Errorf("in steps of %d: messages %.40q and controls %q, want %.40q and %q", step, messages, controls, tt.messages, tt.controls)
				}
				if len(p.part) > 0 {
					t.Errorf("in steps of %d: %d bytes are left", step, len(p.part))
				}
			}
		})
	}
}

func TestParserRefuses(t *testing.T) {
	tests := []struct {
		name   string
		stream []byte
		want   error // nil: any
	}{
		{"masked", []byte{0x81, 0x81, 0, 0, 0, 0, 'a'}, errMasked},
		{"reserved bit", server(0xc1, "a"), errReserved},
		{"reserved opcode", server(0x83, "a"), nil},
		{"endless", []byte{0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0}, errHuge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p parser
			err := p.feed(tt.stream, func([]byte) {}, func(byte, []byte) {})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("feed: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParserDoesNotAllocate(t *testing.T) {
	stream := join(server(0x81, "a\nb"), server(0x81, strings.Repeat("c", 200)))
	var p parser
	n := 0
	count := func([]byte) { n++ }
	control := func(byte, []byte) {}
	allocs := testing.AllocsPerRun(100, func() {
		if err := p.feed(stream, count, control); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 || n == 0 {
		t.Errorf("%v allocations for %d messages, want 0", allocs, n)
	}
}
