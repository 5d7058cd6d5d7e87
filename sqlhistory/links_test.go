package sqlhistory_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A program links the driver of the database that it uses, and no other.
func TestEachPackageLinksItsOwnDriver(t *testing.T) {
	drivers := []string{"github.com/jackc/pgx/v5", "modernc.org/sqlite"}
	for _, tt := range []struct {
		pkg  string
		want []string
	}{
		{".", nil},
		{"./postgres", drivers[:1]},
		{"./sqlite", drivers[1:]},
	} {
		out, err := exec.Command("go", "list", "-deps", tt.pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list -deps %s: %v\n%s", tt.pkg, err, out)
		}
		var got []string
		for _, driver := range drivers {
			if strings.Contains("\n"+string(out), "\n"+driver+"\n") {
				got = append(got, driver)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("drivers that %s links (-want +got):\n%s", tt.pkg, diff)
		}
	}
}
