package redisregistry_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
	"github.com/reto10/chat/test/chatdtest"
)

// password must never be in an error.
const password = "hunter2"

// admin runs commands on a server, each in words of its own.
func admin(t *testing.T, s *redistest.Server, commands ...string) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	for _, command := range commands {
		var words []any
		for word := range strings.FieldsSeq(command) {
			words = append(words, word)
		}
		if err := c.Do(t.Context(), words...).Err(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
}

// chatUser is a client of a user that may do everything but what rules take away.
func chatUser(t *testing.T, rules string) *redis.Options {
	t.Helper()
	s := redistest.Start(t)
	admin(t, s, "ACL SETUSER chat on >"+password+" ~* &* +@all "+rules)
	return &redis.Options{Addr: s.Addr, Username: "chat", Password: password}
}

// TestARedisThatRefusesAtStartSaysWhy starts a registry on servers that refuse it.
func TestARedisThatRefusesAtStartSaysWhy(t *testing.T) {
	at := func(s *redistest.Server) *redis.Options { return &redis.Options{Addr: s.Addr} }
	tests := map[string]struct {
		redis func(t *testing.T) *redis.Options
		want  []string // in Check's error: what a person can change, and what Redis said
		lasts bool     // waiting changes nothing: ErrMisconfigured
	}{
		"full": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				admin(t, s, "CONFIG SET maxmemory 1")
				return at(s)
			},
			[]string{"full", "raise its maxmemory", "OOM"}, false,
		},
		"a replica": {
			func(t *testing.T) *redis.Options {
				host, port, _ := net.SplitHostPort(redistest.Start(t).Addr)
				return at(redistest.Start(t, "--replicaof", host, port))
			},
			[]string{"is a replica", "connect to its primary", "READONLY"}, false,
		},
		"a replica without its primary": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				admin(t, s, "CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1")
				return at(s)
			},
			[]string{"is a replica", "connect to its primary", "MASTERDOWN"}, false,
		},
		"without the replicas that it must have": {
			func(t *testing.T) *redis.Options { return at(redistest.Start(t, "--min-replicas-to-write", "1")) },
			[]string{"min-replicas-to-write", "NOREPLICAS"}, false,
		},
		"cannot save": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				c := s.Client()
				defer c.Close()
				where, err := c.ConfigGet(t.Context(), "dir").Result()
				if err != nil {
					t.Fatal(err)
				}
				// A directory in the place of the file: the copy cannot be moved there.
				if err := os.MkdirAll(filepath.Join(where["dir"], "dump.rdb", "in use"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := c.ConfigSet(t.Context(), "save", "3600 1").Err(); err != nil {
					t.Fatal(err)
				}
				admin(t, s, "BGSAVE")
				s.Await("the saving to fail", func() bool {
					info, err := c.Info(context.Background(), "persistence").Result()
					return err == nil && strings.Contains(info, "rdb_last_bgsave_status:err")
				})
				return at(s)
			},
			[]string{"cannot write its data to disk", "MISCONF"}, false,
		},
		"loading": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t, "--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024")
				admin(t, s, "DEBUG POPULATE 20000", "CONFIG SET key-load-delay 500")
				c := s.Client()
				t.Cleanup(func() { c.Close() })
				go c.Do(context.Background(), "DEBUG", "RELOAD") // ends with the server
				other := s.Client()
				defer other.Close()
				s.Await("it to load", func() bool { return redis.IsLoadingError(other.Ping(context.Background()).Err()) })
				return at(s)
			},
			[]string{"loading its data", "wait", "LOADING"}, false,
		},
		"has all the clients that it takes": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				c := s.Client()
				t.Cleanup(func() { c.Close() })
				if err := c.ConfigSet(t.Context(), "maxclients", "1").Err(); err != nil { // which is this one
					t.Fatal(err)
				}
				return at(s)
			},
			[]string{"maxclients"}, false,
		},

		"wants a password": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				admin(t, s, "CONFIG SET requirepass "+password)
				return at(s)
			},
			[]string{"needs a password", "NOAUTH"}, true,
		},
		"wants another password": {
			func(t *testing.T) *redis.Options {
				o := chatUser(t, "")
				o.Password += "x"
				return o
			},
			[]string{"password", "is wrong", "WRONGPASS"}, true,
		},
		"knows no such user": {
			func(t *testing.T) *redis.Options {
				o := chatUser(t, "")
				o.Username = "chap"
				return o
			},
			[]string{"user", "is wrong", "WRONGPASS"}, true,
		},
		"a user without EVALSHA": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-evalsha") },
			[]string{"lacks a permission", "evalsha", "ACL SETUSER"}, true,
		},
		"a user without EVAL": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-eval") },
			[]string{"lacks a permission", "eval", "ACL SETUSER"}, true,
		},
		"a user without INFO": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-info") },
			[]string{"lacks a permission", "INFO", "ACL SETUSER"}, true,
		},
		"a user without a command in a script": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-zadd") },
			[]string{"lacks a permission", "+@sortedset", "ACL SETUSER"}, true,
		},
		"a user without SMEMBERS": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-smembers") },
			[]string{"lacks a permission", "smembers", "ACL SETUSER"}, true,
		},
		"a user without XREVRANGE": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-xrevrange") },
			[]string{"lacks a permission", "xrevrange", "ACL SETUSER"}, true,
		},
		"a user without SUBSCRIBE": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-subscribe") },
			[]string{"lacks a permission", "subscribe", "ACL SETUSER"}, true,
		},
		"a user without PUBLISH": {
			func(t *testing.T) *redis.Options { return chatUser(t, "-publish") },
			[]string{"lacks a permission", "publish", "ACL SETUSER"}, true,
		},
		"a user without the keys": {
			func(t *testing.T) *redis.Options { return chatUser(t, "resetkeys ~other:*") },
			[]string{"lacks a permission", "~chat:*", "NOPERM"}, true,
		},
		"a user without the pub/sub channels": {
			func(t *testing.T) *redis.Options { return chatUser(t, "resetchannels &other:*") },
			[]string{"lacks a permission", "&chat:*", "NOPERM"}, true,
		},
		"without a command": {
			func(t *testing.T) *redis.Options { return at(redistest.Start(t, "--rename-command", "EVALSHA", "")) },
			[]string{"Redis 6.2 or later", "rename-command", "unknown command", "evalsha"}, true,
		},
		"without SUBSCRIBE": {
			func(t *testing.T) *redis.Options { return at(redistest.Start(t, "--rename-command", "SUBSCRIBE", "")) },
			[]string{"Redis 6.2 or later", "rename-command", "unknown command", "subscribe"}, true,
		},
		"too old": {
			func(t *testing.T) *redis.Options {
				s := redistest.Start(t)
				return &redis.Options{Addr: s.Addr, Dialer: older}
			},
			[]string{"Redis is version 5.0.3", "6.2 or later"}, true,
		},
		"a Sentinel": {
			func(t *testing.T) *redis.Options {
				sentinel, _ := redistest.Sentinel(t, redistest.Start(t))
				return at(sentinel)
			},
			[]string{"this is a Sentinel", "the primary"}, true,
		},
		"a node of a Cluster": {
			func(t *testing.T) *redis.Options {
				return at(redistest.Cluster(t, 0)[0])
			},
			[]string{"Redis Cluster"}, true,
		},
		"speaks TLS only": {
			func(t *testing.T) *redis.Options { return &redis.Options{Addr: startTLS(t)} },
			[]string{"TLS"}, false, // it looks like a connection that broke
		},
		"speaks no TLS": {
			func(t *testing.T) *redis.Options {
				return &redis.Options{Addr: redistest.Start(t).Addr, TLSConfig: &tls.Config{InsecureSkipVerify: true}}
			},
			[]string{"answers without TLS"}, false, // it does not answer at all
		},
		"has a certificate that is not trusted": {
			func(t *testing.T) *redis.Options {
				return &redis.Options{Addr: startTLS(t), TLSConfig: &tls.Config{ServerName: "127.0.0.1"}}
			},
			[]string{"certificate"}, true,
		},
		"repeats the password": { // as what does not know AUTH does
			func(t *testing.T) *redis.Options {
				return &redis.Options{Addr: saying(t, "-ERR unknown command 'AUTH', with args beginning with: '"+password+"'\r\n"), Password: password}
			},
			[]string{"Redis 6.2 or later", "unknown command 'AUTH'"}, true,
		},
		"protected": { // on loopback Redis is not, so this is what it says to others
			func(t *testing.T) *redis.Options {
				return &redis.Options{Addr: saying(t, "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user. In this mode connections are only accepted from the loopback interface.\r\n")}
			},
			[]string{"protected mode", "set a password"}, true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := tt.redis(t)
			opts.ContextTimeoutEnabled = true
			client := redis.NewClient(opts)
			defer client.Close()
			var log logBuffer
			r, err := redisregistry.New(client, log.option())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Shutdown(context.Background())
			_, _ = r.Start(nil, nil) // Check says what is wrong
			var got error
			says := func() bool {
				got = r.Check(context.Background())
				for _, want := range tt.want {
					if got == nil || !strings.Contains(got.Error(), want) {
						return false
					}
				}
				return errors.Is(got, redisregistry.ErrMisconfigured) == tt.lasts
			}
			// Within what a program waits for at start.
			soon := time.After(8 * time.Second)
			for !says() {
				select {
				case <-time.After(20 * time.Millisecond):
				case <-soon:
					t.Fatalf("Check says %v, want %q and ErrMisconfigured %t", got, tt.want, tt.lasts)
				}
			}
			if text := got.Error(); strings.Contains(text, "\n") || strings.Contains(text, password) {
				t.Errorf("Check says %q, want one line without the password", text)
			}
			if _, err := r.Add(t.Context(), newReceiver("ana", chat.RoleUser), 0); err == nil {
				t.Error("a socket could connect")
			}
			if strings.Contains(log.String(), password) {
				t.Errorf("the password is in the log:\n%s", log.String())
			}
		})
	}
}

// TestARedisUserWithWhatTheDocumentsNameIsEnough keeps the list in the documents and in
// the errors complete.
func TestARedisUserWithWhatTheDocumentsNameIsEnough(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin(t, s, "ACL SETUSER chat on >"+password+" ~chat:* &chat:* +@scripting +@string +@hash +@set +@sortedset +@stream +@pubsub +del +exists +pexpire +ping +time +unlink +info")
	client := func() *redis.Client {
		return redis.NewClient(&redis.Options{Addr: s.Addr, Username: "chat", Password: password})
	}
	a, b := start(t, client()), start(t, client())
	ana := a.connect("ana", "news")
	b.connect("ana")
	b.publish("news", "1")
	ana.wantGot(t, "news", "1")
	if _, err := a.History().After(t.Context(), "news", chat.Position{}, chat.Limit{Count: 10}); err != nil {
		t.Error(err)
	}
	if _, err := b.CloseUser(t.Context(), "ana", 1, chat.CloseTooMany, "too many"); err != nil {
		t.Error(err)
	}
	if closed, err := b.CloseUser(t.Context(), "ana", 0, chat.CloseDisconnected, "go"); err != nil || closed == 0 {
		t.Errorf("closed %d, %v", closed, err)
	}
	log, err := s.Client().Do(t.Context(), "ACL", "LOG").Result()
	if err != nil || len(log.([]any)) > 0 {
		t.Errorf("Redis refused %v, %v", log, err)
	}
}

// older is a dialer of connections where Redis says that it is of an old version.
func older(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &olderConn{conn}, nil
}

type olderConn struct{ net.Conn }

func (c *olderConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	copy(b, strings.Replace(string(b[:n]), "redis_version:7.0.15", "redis_version:5.0.3 ", 1))
	return n, err
}

// startTLS starts a server that speaks TLS only, with a certificate of its own.
func startTLS(t *testing.T) (addr string) {
	t.Helper()
	cert, key, _ := chatdtest.Certificate(t)
	addr = chatdtest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	redistest.Start(t, "--tls-port", port, "--tls-auth-clients", "no",
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
	return addr
}

// saying starts a server that says the same text at first and for each line that comes.
func saying(t *testing.T, text string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, text) // Redis does not wait for what it refuses
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				fmt.Fprint(conn, text)
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// TestARedisThatRefusesWhileItRunsSaysWhy takes something away from a node that runs.
func TestARedisThatRefusesWhileItRunsSaysWhy(t *testing.T) {
	tests := map[string]struct {
		breaks, mends string
		want          []string
	}{
		"full":      {"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", []string{"raise its maxmemory", "OOM"}},
		"a replica": {"REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", []string{"connect to its primary", "READONLY"}},
		"scripts":   {"ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha", []string{"lacks a permission", "evalsha"}},
		"a key":     {"ACL SETUSER default resetkeys ~x", "ACL SETUSER default allkeys", []string{"lacks a permission", "~chat:*"}},
		"pub/sub":   {"ACL SETUSER default -publish", "ACL SETUSER default +publish", []string{"lacks a permission", "publish"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			n := start(t, clientOf(s), redisregistry.WithLease(2*time.Second))
			n.connect("ana")
			admin(t, s, tt.breaks)
			eventually(t, fmt.Sprintf("Check to say %q", tt.want), func() bool {
				err := n.Check(context.Background())
				for _, want := range tt.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						return false
					}
				}
				return true
			})
			if _, err := n.try("", "x"); err == nil && name != "pub/sub" {
				t.Error("stored")
			}
			admin(t, s, tt.mends)
			n.awaitHealth(true)
		})
	}
}
