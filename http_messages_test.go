package chat_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

func TestBackEndsPublishAndReadWithoutASocket(t *testing.T) {
	s := chatserver.Serve(t)
	ana := s.Dial("ana", "channel", "news")
	admin := s.Token("admin")
	var ids []string
	for i := range 5 {
		resp, body := s.Request("POST", "/messages", admin, fmt.Sprintf(`{"content":"%d","channel":"news"}`, i))
		var m wstest.Event
		if resp.StatusCode != 201 || json.Unmarshal([]byte(body), &m) != nil {
			t.Fatalf("POST /messages: %d %s", resp.StatusCode, body)
		}
		m.Type = "message"
		if diff := cmp.Diff(m, ana.Want("message")); diff != "" {
			t.Errorf("delivered (-answered +got):\n%s", diff)
		}
		ids = append(ids, m.ID)
	}
	s.Publish("", "elsewhere")
	tests := map[string]struct {
		query string
		want  []string
		more  bool
		gap   bool
	}{
		"all":                  {"channel=news", ids, false, false},
		"first page":           {"channel=news&limit=2", ids[:2], true, false},
		"after an id":          {"channel=news&after=" + ids[1] + "&limit=3", ids[2:], false, false},
		"an id is a channel":   {"after=" + ids[3], ids[4:], false, false},
		"after the last":       {"channel=news&after=" + ids[4], nil, false, false},
		"after one not known":  {"channel=news&after=7-0ther-news", ids, false, true},
		"channel without any":  {"channel=empty", nil, false, false},
		"limit over the limit": {"channel=news&limit=99999", ids, false, false},

		"newest":                   {"channel=news&before=&limit=2", ids[3:], true, false},
		"all of the newest":        {"channel=news&before=&limit=5", ids, false, false},
		"before an id":             {"channel=news&before=" + ids[3] + "&limit=2", ids[1:3], true, false},
		"before an id, to the end": {"before=" + ids[3] + "&limit=3", ids[:3], false, false},
		"before the first":         {"before=" + ids[0], nil, false, false},
		"before one not known":     {"before=7-0ther-news", nil, false, true},
		"before one to come":       {"limit=3&before=" + strings.Replace(ids[4], "5", "8", 1), nil, false, true},
		"newest of none":           {"channel=empty&before=", nil, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, more, gap := readPage(s, tt.query)
			if diff := cmp.Diff(tt.want, got); diff != "" || more != tt.more || gap != tt.gap {
				t.Errorf("more %v, gap %v, messages (-want +got):\n%s", more, gap, diff)
			}
		})
	}
}

// readPage reads one of the history, as bob.
func readPage(s *chatserver.Server, query string) (ids []string, more, gap bool) {
	s.T.Helper()
	resp, body := s.Request("GET", "/messages?"+query, s.Token("bob"), "")
	var page struct {
		Messages  []wstest.Event
		More, Gap bool
	}
	if resp.StatusCode != 200 || json.Unmarshal([]byte(body), &page) != nil || page.Messages == nil {
		s.T.Fatalf("%d %s", resp.StatusCode, body)
	}
	for _, m := range page.Messages {
		ids = append(ids, m.ID)
	}
	return ids, page.More, page.Gap
}

func TestPagesOfTheHistoryEndEarlyWhenTheyAreLarge(t *testing.T) {
	s := chatserver.Serve(t)
	text := strings.Repeat("x", 32<<10)
	var ids []string
	for range 100 {
		ids = append(ids, s.Publish("", text)...)
	}
	for _, direction := range []string{"after", "before"} {
		t.Run(direction, func(t *testing.T) {
			var got []string
			from := ""
			for {
				_, body := s.Request("GET", "/messages?limit=1000&"+direction+"="+from, s.Token("ana"), "")
				if len(body) > 2<<20 {
					t.Fatalf("a page of %d bytes", len(body))
				}
				var page struct {
					Messages []wstest.Event
					More     bool
				}
				if err := json.Unmarshal([]byte(body), &page); err != nil {
					t.Fatal(err)
				}
				var of []string
				for _, m := range page.Messages {
					of = append(of, m.ID)
				}
				if direction == "after" {
					got, from = append(got, of...), of[len(of)-1]
				} else {
					got, from = append(of, got...), of[0]
				}
				if !page.More {
					break
				}
			}
			if diff := cmp.Diff(ids, got); diff != "" {
				t.Errorf("all pages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadingBackwardEndsWhereNothingIsKept(t *testing.T) {
	s := chatserver.Serve(t, chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{Count: 5})))
	var ids []string
	for i := range 9 {
		ids = append(ids, s.Publish("", fmt.Sprint(i))...)
	}
	for name, tt := range map[string]struct {
		query string
		want  []string
		more  bool
		gap   bool
	}{
		"page within":            {"before=" + ids[8] + "&limit=3", ids[5:8], true, false},
		"page to the oldest":     {"before=" + ids[7] + "&limit=3", ids[4:7], false, true},
		"page beyond the oldest": {"before=" + ids[7] + "&limit=9", ids[4:7], false, true},
		"newest and all":         {"before=&limit=100", ids[4:], false, true},
		"before the oldest":      {"before=" + ids[4], nil, false, true},
		"before what is gone":    {"before=" + ids[2], nil, false, true},
		"before the first":       {"before=" + ids[0], nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, more, gap := readPage(s, tt.query)
			if diff := cmp.Diff(tt.want, got); diff != "" || more != tt.more || gap != tt.gap {
				t.Errorf("more %v, gap %v, messages (-want +got):\n%s", more, gap, diff)
			}
		})
	}
}
