package password_test

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/password"
)

var (
	sum   = strings.Repeat("a", 53)
	cheap = "$2y$05$" + sum
)

func TestParseReads(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"nothing", "", ""},
		{"one line without an end", "ana:" + cheap, "ana:" + cheap + "\n"},
		{"roles", "bob:" + cheap + "\nana:" + cheap + ":admin\n", "ana:" + cheap + ":admin\nbob:" + cheap + "\n"},
		{"comments, blanks and spaces", "# who\n\n  \t\n  # more\nana:" + cheap + "  \n", "ana:" + cheap + "\n"},
		{"CRLF", "ana:" + cheap + ":admin\r\n\r\nbob:" + cheap + "\r\n", "ana:" + cheap + ":admin\nbob:" + cheap + "\n"},
		{"byte order mark", "\ufeffana:" + cheap + "\n", "ana:" + cheap + "\n"},
		{"every variant", "a:$2a$05$" + sum + "\nb:$2b$05$" + sum + "\nc:$2y$16$" + sum, "a:$2a$05$" + sum + "\nb:$2b$05$" + sum + "\nc:$2y$16$" + sum + "\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			users := parse(t, test.file)
			if diff := cmp.Diff(test.want, users.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	const hashHint = "not a bcrypt hash ($2a$, $2b$ or $2y$, 60 characters; htpasswd -B makes one)"
	tests := []struct{ name, file, want string }{
		{"no colon", "# c\nana\n", "line 2: not name:hash or name:hash:role"},
		{"only a hash", cheap, "line 1: not name:hash or name:hash:role"},
		{"too many fields", "ana:" + cheap + ":admin:x", "line 1: not name:hash or name:hash:role"},
		{"no name", ":" + cheap, "line 1: not a valid user name"},
		{"space before the name", " ana:" + cheap, "line 1: not a valid user name"},
		{"no role", "ana:" + cheap + ":", "line 1: not a valid role"},
		{"role with a space", "ana:" + cheap + ": admin", "line 1: not a valid role"},
		{"plain password", "ana:secreto", "line 1: " + hashHint},
		{"MD5 of htpasswd", "ana:$apr1$kQ0f1Uq9$3Zc1b0b0b0b0b0b0b0b0b0", "line 1: " + hashHint},
		{"short hash", "ana:" + cheap[:59], "line 1: " + hashHint},
		{"long hash", "ana:" + cheap + "a", "line 1: " + hashHint},
		{"variant of a buggy crypt", "ana:$2x$05$" + sum, "line 1: " + hashHint},
		{"not base64", "ana:" + cheap[:59] + "=", "line 1: " + hashHint},
		{"swapped fields", cheap + ":ana", "line 1: " + hashHint},
		{"hash with another last character", "ana:" + cheap[:59] + "b", "line 1: a bcrypt hash that no password has: its last character is wrong"},
		{"hash of another password cut off and put together", "ana:" + cheap[:58] + "a/", "line 1: a bcrypt hash that no password has: its last character is wrong"},
		{"salt cut off", "ana:$2y$05$" + sum[:52], "line 1: " + hashHint},
		{"SHA-512 of crypt", "ana:$6$abcdefgh$" + strings.Repeat("a", 86), "line 1: " + hashHint},
		{"SHA-1 of htpasswd", "ana:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 1: " + hashHint},
		{"argon2", "ana:$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", "line 1: " + hashHint},
		{"DES of crypt", "ana:abJnggxhB/yWI", "line 1: " + hashHint},
		{"locked by usermod -L", "ana:!" + cheap, "line 1: " + hashHint},
		{"cost too low", "ana:$2y$03$" + sum, "line 1: bcrypt cost not within 4 to 16"},
		{"cost too high", "ana:$2y$17$" + sum, "line 1: bcrypt cost not within 4 to 16"},
		{"cost no number", "ana:$2y$-5$" + sum, "line 1: bcrypt cost not within 4 to 16"},
		{"twice", "ana:" + cheap + "\n\nana:" + cheap, "line 3: line 1 has this user already"},
		{"long line", "# c\n" + strings.Repeat("x", 2000), "line 2: longer than 1024 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			users, err := password.Parse(strings.NewReader(test.file), valid)
			if err == nil {
				t.Fatalf("read as %v", users)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseWrapsTheReadersError(t *testing.T) {
	broken := errors.New("broken disk")
	if _, err := password.Parse(iotest.ErrReader(broken), valid); !errors.Is(err, broken) {
		t.Errorf("got %v, want it to wrap %v", err, broken)
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{
		"", "ana:" + cheap, "ana:" + cheap + ":admin\r\n# c\n\nbob:" + cheap,
		"ana:" + cheap + "\nana:" + cheap, ":::", "\ufeff", "#", "a:$2y$99$" + sum,
	} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		users, err := password.Parse(strings.NewReader(file), valid)
		if err != nil {
			if strings.Contains(err.Error(), sum) {
				t.Errorf("a hash in the error: %v", err)
			}
			return
		}
		again := parse(t, users.String())
		if diff := cmp.Diff(users.String(), again.String()); diff != "" {
			t.Errorf("written and read again (-want +got):\n%s", diff)
		}
	})
}
