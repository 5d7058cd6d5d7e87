package row

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/bench/load"
)

func TestDirectMessagesReachOneUserEach(t *testing.T) {
	dependOnServers(t)
	for _, kind := range kindsOf(t, "direct") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const sockets, each, further = 3, 2, 1
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := newLab(t).with(ctx, config{kind: kind, direct: true}, crowd{}, func(tr *trial) error {
				if err := tr.connect(ctx, sockets); err != nil {
					return err
				}
				before := make(map[int]int)
				tr.Each(func(s *load.Socket) { before[s.Number] = s.Messages })
				const n = sockets*each + further
				o := order{n: n, size: contentSize, users: sockets, publishers: 2}
				if err := tr.order(ctx, o, n); err != nil {
					return err
				}
				got := make(map[int]int)
				tr.Each(func(s *load.Socket) { got[s.Number] = s.Messages - before[s.Number] })
				if diff := cmp.Diff(map[int]int{0: each + further, 1: each, 2: each}, got); diff != "" {
					t.Errorf("messages by user (-want +got):\n%s", diff)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDirectMessageToNobodyIsAnError(t *testing.T) {
	dependOnServers(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := newLab(t).with(ctx, config{kind: "gorilla", direct: true}, crowd{}, func(tr *trial) error {
		if err := tr.publish(ctx, order{n: 1, size: contentSize, users: 1}); err == nil {
			t.Error("a message to a user without a socket is no error")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
