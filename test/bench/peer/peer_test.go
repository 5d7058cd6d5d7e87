package peer

import (
	"testing"
	"time"
)

func TestStamp(t *testing.T) {
	due := time.Unix(1_700_000_000, 42)
	for _, size := range []int{1, 128, 4096} {
		event := Event(content(17, due, size))
		seq, at, ok := Stamp(event)
		if !ok || seq != 17 || at != due.UnixNano() {
			t.Errorf("Stamp of an event with %d bytes = %d, %d, %v, want 17, %d", size, seq, at, ok, due.UnixNano())
		}
	}
	for _, event := range []string{"", `{"type":"user_joined"}`, "~", "~1", "~1 2", "~ 1 2 ", "~x 2 "} {
		if _, _, ok := Stamp([]byte(event)); ok {
			t.Errorf("Stamp(%q) is ok, want not", event)
		}
	}
}

func TestContentHasItsSize(t *testing.T) {
	for _, size := range []int{64, 128, 4096} {
		if got := len(content(1, time.Unix(1_700_000_000, 0), size)); got != size {
			t.Errorf("content of %d bytes has %d", size, got)
		}
	}
}

func TestAnswer(t *testing.T) {
	d := NewDialect("gws", nil)
	b, err := Answer([]byte(d.Command()))
	if err != nil || len(b) < 8 {
		t.Errorf("Answer(%s) = %s, %v, want one that counts", d.Command(), b, err)
	}
	if _, err := Answer([]byte("{")); err == nil {
		t.Error("Answer of half a command is no error")
	}
}
