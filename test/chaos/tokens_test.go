package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

func TestNodesAcceptTheTokens(t *testing.T) {
	secret := strings.Repeat("s", chat.MinSecret)
	nodes, err := chat.NewHS256([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	want := chat.Identity{User: chat.User{Name: "ana", Role: chat.RoleAdmin}, Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
	got, err := nodes.Authenticate(t.Context(), signer(secret).token(want.User, want.Expires))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}
