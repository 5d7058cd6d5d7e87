package redisregistry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// refusal is an error of Redis with what a person can change about it, in one line.
type refusal struct {
	advice string
	cause  error
	lasts  bool // a retry cannot fix it: it is ErrMisconfigured
}

// maxQuoted bounds how much of Redis' error an error repeats, in bytes.
const maxQuoted = 200

func (r *refusal) Error() string {
	// Redis repeats the arguments of an unknown command, and one may be a password.
	cause, _, _ := strings.Cut(r.cause.Error(), ", with args beginning with")
	cause, _, _ = strings.Cut(cause, "\n")
	if len(cause) > maxQuoted {
		cause = strings.ToValidUTF8(cause[:maxQuoted], "") + "…"
	}
	return r.advice + ": " + cause
}

func (r *refusal) Unwrap() error        { return r.cause }
func (r *refusal) Is(target error) bool { return r.lasts && target == ErrMisconfigured }

// needed is what a Redis user must be allowed, in the form of ACL SETUSER, without the keys and
// the pub/sub channels.
const needed = "+@scripting +@string +@hash +@set +@sortedset +@stream +@pubsub +del +exists +pexpire +ping +time +unlink +info"

// refusals are the beginnings of Redis' errors, without ERR. "%[1]s" in an advice is the prefix
// of all keys.
var refusals = []struct {
	begins string
	advice string
	lasts  bool
}{
	{"NOPERM", noPermission, true},
	{"The user executing the script", noPermission, true}, // of Redis 7.0
	{"ACL failure in script", noPermission, true},         // of later ones
	{"NOAUTH", "Redis needs a password, but the client has none", true},
	{"WRONGPASS", "the user name or the password for Redis is wrong", true},
	{"invalid password", "the password for Redis is wrong", true}, // before Redis 6
	{"Client sent AUTH, but no password is set", "the client has a password, but Redis has none", true},
	{"DENIED", "Redis is in protected mode: set a password for it (requirepass), or let it listen on loopback only", true},
	{"Only HELLO messages are accepted by Sentinel", aSentinel, true},
	{"unknown command", "Redis does not know a command: use Redis 6.2 or later, not a Sentinel, and do not rename commands (rename-command)", true},
	{"Unknown Redis command called from script", "Redis does not know a command: use Redis 6.2 or later, and do not rename commands (rename-command)", true},
	{"MOVED", "Redis is a node of a Redis Cluster: use a client of a Cluster (redis+cluster:// of chatd-cluster)", true},
	{"This instance has cluster support disabled", "Redis is not a Redis Cluster: use a client of a single server (redis:// of chatd-cluster)", true},
	{"SELECT is not allowed in cluster mode", "Redis is a node of a Redis Cluster, which has database 0 only: use a client of a Cluster (redis+cluster:// of chatd-cluster)", true},
	{"DB index is out of range", "Redis has no database with this number", true},

	{"OOM", "Redis is full: raise its maxmemory, or keep fewer messages", false},
	{"READONLY", aReplica, false},
	{"MASTERDOWN", aReplica, false},
	{"NOREPLICAS", "Redis has fewer replicas than its min-replicas-to-write", false},
	{"MISCONF", "Redis cannot write its data to disk: see its log, and whether its disk is full", false},
	{"LOADING", "Redis is loading its data: wait until it is done", false},
	{"BUSY", "Redis is busy with a script: it is overloaded, or another program's script is slow", false},
	{"CLUSTERDOWN", "the Redis Cluster does not serve all slots: see CLUSTER INFO", false},
	{"max number of clients", "Redis has reached its maximum of clients: raise its maxclients, or use fewer", false},
}

const (
	noPermission = "the Redis user lacks a permission: ACL SETUSER … ~%[1]s* &%[1]s* " + needed
	aReplica     = "Redis is a replica, which stores nothing: connect to its primary"
	aSentinel    = "this is a Sentinel, not a Redis: use a client that asks it for the primary (redis+sentinel:// of chatd-cluster)"
)

// explain adds to an error of Redis what a person can change about it, if that is known.
// prefix is that of the keys.
func explain(err error, prefix string) error {
	var known *refusal
	if err == nil || errors.As(err, &known) {
		return err
	}
	for _, r := range refusals {
		if redis.HasErrorPrefix(err, r.begins) {
			advice := r.advice
			if strings.Contains(advice, "%[1]s") {
				advice = fmt.Sprintf(advice, prefix)
			}
			return &refusal{advice, err, r.lasts}
		}
	}
	return err
}

// explainTLS is explain for a Ping that failed in TLS. Errors of other calls may come from
// another history's server, whose certificate is not that of Redis.
func explainTLS(err error) error {
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var name x509.HostnameError
	switch {
	case errors.As(err, &name):
		return &refusal{"the certificate of Redis is for another name: connect with the name in the certificate", err, true}
	case errors.As(err, &untrusted):
		return &refusal{"the certificate of Redis is not trusted: add its CA to the trusted ones of this machine", err, true}
	case errors.As(err, &plain):
		return &refusal{"Redis answers without TLS: connect without TLS (redis:// of chatd-cluster)", err, true}
	}
	return err
}

// Ping checks the connection to Redis. Its error names what a person can change, if that is
// known: a wrong password, a missing permission, TLS on one side only.
func Ping(ctx context.Context, client redis.UniversalClient) error {
	return explainSilence(explain(client.Ping(ctx).Err(), defaultPrefix), client)
}

// explainSilence is explain for a Ping that was not answered. A server that expects the other
// protocol closes the connection or does not answer, and so does one with too many clients.
func explainSilence(err error, client redis.UniversalClient) error {
	var known *refusal
	if err = explainTLS(err); err == nil || errors.As(err, &known) {
		return err
	}
	var slow net.Error
	silent := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout()
	ended := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch encrypted := usesTLS(client); {
	case encrypted && (silent || ended):
		return &refusal{"Redis does not answer: it is overloaded, or answers without TLS: then connect without TLS (redis:// of chatd-cluster)", err, false}
	case ended:
		return &refusal{"Redis closed the connection: it has reached its maximum of clients (maxclients), or needs TLS (rediss:// of chatd-cluster)", err, false}
	}
	return err
}

func usesTLS(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c.Options().TLSConfig != nil
	case *redis.ClusterClient:
		return c.Options().TLSConfig != nil
	}
	return false
}
