package sqlhistory_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
)

// A service whose messages outlast it.
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
		history, err := sqlhistory.OpenSQLite(ctx, filepath.Join(dir, "history.db"))
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
		fmt.Println(m.Place.Seq, m.Content)
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
