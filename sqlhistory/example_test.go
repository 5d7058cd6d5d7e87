package sqlhistory_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory/sqlite"
)

// The messages of a service outlast its process.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	signer, err := chat.NewHS256([]byte("a secret of 32 bytes, from a file"))
	if err != nil {
		log.Fatal(err)
	}
	for _, content := range []string{"before the restart", "after it"} {
		history, err := sqlite.Open(ctx, filepath.Join(dir, "history.db"))
		if err != nil {
			log.Fatal(err)
		}
		service, err := chat.New(signer, chat.WithHistory(history))
		if err != nil {
			log.Fatal(err)
		}
		m, err := service.Broadcast(ctx, chat.Message{Sender: "ops", Content: content})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Position.Seq, m.Content)
		if err := service.Shutdown(ctx); err != nil {
			log.Fatal(err)
		}
		if err := history.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// 1 before the restart
	// 2 after it
}

// An operator restores an older copy of the file. The positions that clients know by then
// are never given to other messages.
func ExampleHistory_BeginEpoch() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	history, err := sqlite.Open(ctx, filepath.Join(dir, "restored.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer history.Close()
	known, err := history.Append(ctx, chat.Message{Content: "hello", Time: time.Now()})
	if err != nil {
		log.Fatal(err)
	}

	if err := history.BeginEpoch(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = history.After(ctx, "", known[0].Position, chat.Limit{Count: 10})
	fmt.Println("gone:", errors.Is(err, chat.ErrGone))
	kept, err := history.After(ctx, "", chat.Position{}, chat.Limit{Count: 10})
	fmt.Println("kept:", kept[0].Content, err)
	// Output:
	// gone: true
	// kept: hello <nil>
}
