package chaos

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// listOf is a page of the messages from one seq to another.
func listOf(from, to uint64, more, gap bool) page {
	p := page{More: more, Gap: gap}
	for seq := from; seq <= to; seq++ {
		p.Messages = append(p.Messages, event{ID: chat.FormatID("a", at(seq)), Content: fmt.Sprint(seq)})
	}
	return p
}

func TestReadingFindsPagesThatMakeNoSense(t *testing.T) {
	const most = 5
	tests := []struct {
		name     string
		backward bool
		pages    []page // the last one is repeated
		err      error
		want     int // findings
		messages int
	}{
		{"forward", false, []page{listOf(1, 2, true, false), listOf(3, 4, true, false), listOf(5, 5, false, false)}, nil, 0, 5},
		{"backward", true, []page{listOf(4, 5, true, false), listOf(1, 3, false, false)}, nil, 0, 5},
		{"nothing", false, []page{{}}, nil, 0, 0},
		{"backward to what is no longer kept", true, []page{listOf(8, 9, true, false), listOf(6, 7, false, true)}, nil, 0, 4},
		{"no end", false, []page{listOf(1, 2, true, false)}, nil, 1, 0},
		{"empty, and more", false, []page{{More: true}}, nil, 1, 0},
		{"a hole on a page", false, []page{{Messages: append(listOf(1, 1, false, false).Messages, listOf(3, 3, false, false).Messages...)}}, nil, 1, 2},
		{"a hole between pages", false, []page{listOf(1, 2, true, false), listOf(4, 5, false, false)}, nil, 1, 4},
		{"a hole that is reported", false, []page{listOf(1, 2, true, false), listOf(4, 5, false, true)}, nil, 2, 4},
		{"the same again", false, []page{listOf(1, 2, true, false), listOf(1, 2, false, false)}, nil, 1, 4},
		{"the same again, backward", true, []page{listOf(1, 2, true, false), listOf(1, 2, false, false)}, nil, 1, 4},
		{"no answer", false, nil, errors.New("503"), 1, 0},
		{"another channel's", false, []page{{Messages: []event{{ID: chat.FormatID("b", at(1))}}}}, nil, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newReport(io.Discard)
			asked := 0
			all, _ := readAll(r, "a", test.backward, most, func(string) (page, error) {
				asked++
				if test.err != nil {
					return page{}, test.err
				}
				return test.pages[min(asked, len(test.pages))-1], nil
			})
			if got := r.verdict().Findings[findPages]; got != test.want {
				t.Errorf("%d findings, want %d: %v", got, test.want, r.verdict().Examples)
			}
			if diff := cmp.Diff(test.messages, len(all)); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}
