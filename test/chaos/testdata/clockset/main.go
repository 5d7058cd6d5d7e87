// Command clockset runs a history in memory whose clock is set back by an hour after a
// message was stored. It is built with the overlay of skew.go and prints whether messages
// still expire at their age.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/reto10/chat"
)

const patience = 10 * time.Second

func main() {
	ctx := context.Background()
	history := chat.NewMemoryHistory(chat.MemoryLimits{Age: time.Second})
	appendTo(ctx, history, "early")
	time.JumpClock(-3600)
	appendTo(ctx, history, "late")
	began := time.Now()
	for kept(ctx, history, "early")+kept(ctx, history, "late") > 0 && time.Since(began) < patience {
		<-time.After(100 * time.Millisecond)
	}
	fmt.Println("messages from before the clock was set:", kept(ctx, history, "early"))
	fmt.Println("messages from after it:", kept(ctx, history, "late"))
	appendTo(ctx, history, "new")
	fmt.Println("new messages:", kept(ctx, history, "new"))
}

func appendTo(ctx context.Context, h *chat.MemoryHistory, channel string) {
	if _, err := h.Append(ctx, chat.Message{Channel: channel, Content: "x"}); err != nil {
		fatal(err)
	}
}

func kept(ctx context.Context, h *chat.MemoryHistory, channel string) int {
	msgs, err := h.After(ctx, channel, chat.Position{}, chat.Limit{Count: 10})
	if err != nil {
		fatal(err)
	}
	return len(msgs)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
