package postgres_test

import (
	"context"
	"log"
	"os"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/postgres"
)

// Several nodes share a PostgreSQL database. The password belongs in PGPASSWORD or in
// ~/.pgpass, not in the address. This example is compiled and not run.
func ExampleOpen() {
	ctx := context.Background()
	history, err := postgres.Open(ctx, "postgres://chat@db.example.com/chat?sslmode=verify-full",
		sqlhistory.WithCount(10_000), sqlhistory.WithAge(7*24*time.Hour))
	if err != nil {
		log.Fatal(err) // cannot be reached, or its tables are of a newer version
	}
	defer history.Close() // after the service was shut down
	signer, err := chat.NewHS256([]byte(os.Getenv("CHAT_SECRET")))
	if err != nil {
		log.Fatal(err)
	}
	service, err := chat.New(signer, chat.WithHistory(history))
	if err != nil {
		log.Fatal(err)
	}
	defer service.Shutdown(ctx)
}
