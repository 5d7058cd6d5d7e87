package redisregistry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// ErrMisconfigured is wrapped by errors that a retry cannot fix: someone must change the
// configuration of Redis or of the nodes.
var ErrMisconfigured = errors.New("misconfigured")

// misconfigured is an error that says what to change, in one line.
type misconfigured string

func (m misconfigured) Error() string        { return string(m) }
func (m misconfigured) Is(target error) bool { return target == ErrMisconfigured }

// refuse makes ready return err until refuse(at, nil). It logs an error that has changed.
func (r *Registry) refuse(at *atomic.Pointer[reason], err error) {
	if err == nil {
		at.Store(nil)
		return
	}
	if before := at.Swap(&reason{err}); before == nil || before.err.Error() != err.Error() {
		r.cfg.logger.Error("this node is not ready", "error", err)
	}
}

// refused returns why the registry is not ready although Redis answers, or nil.
func (r *Registry) refused() error {
	for _, at := range []*atomic.Pointer[reason]{&r.unsuitableRedis, &r.otherHistory} {
		if why := at.Load(); why != nil {
			return why.err
		}
	}
	return nil
}

// checkServers refuses a Redis that is too old, and one that evicts keys when its memory is
// full: positions would be used twice, and connected users would leave. A Redis that does not
// return its settings is accepted.
func (r *Registry) checkServers(ctx context.Context) error {
	_, err := bounded(ctx, r.store, func(ctx context.Context) (none struct{}, err error) {
		check := func(ctx context.Context, client *redis.Client) error {
			return unsuitable(ctx, client, client.Options().Addr)
		}
		switch c := r.client.(type) {
		case *redis.ClusterClient:
			return none, c.ForEachMaster(ctx, check)
		default:
			return none, unsuitable(ctx, c, "")
		}
	})
	if err != nil && !errors.Is(err, ErrMisconfigured) {
		return nil // Redis does not answer, and the next call fails too
	}
	r.refuse(&r.unsuitableRedis, err)
	return err
}

// oldestMajor and oldestMinor are the oldest version of Redis that works: it has ZMSCORE.
const oldestMajor, oldestMinor = 6, 2

// tooOld reports whether a version is older than that. A version that cannot be parsed is not.
func tooOld(version string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major < oldestMajor || major == oldestMajor && minor < oldestMinor
}

// unsuitable returns why a server cannot be used, whatever it answers later, or nil.
func unsuitable(ctx context.Context, client redis.Cmdable, addr string) error {
	info, err := client.Info(ctx).Result() // before Redis 7, INFO takes one section, or none for all
	if err != nil {
		return nil // INFO may not be allowed
	}
	values := make(map[string]string)
	for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		values[name] = strings.TrimSpace(value)
	}
	where := "Redis"
	if addr != "" {
		where += " at " + addr
	}
	if version := values["redis_version"]; tooOld(version) {
		return misconfigured(fmt.Sprintf("redisregistry: %s is version %s: it must be %d.%d or later", where, version, oldestMajor, oldestMinor))
	}
	limit, policy := values["maxmemory"], values["maxmemory_policy"]
	if limit == "" || limit == "0" || policy == "" || policy == "noeviction" {
		return nil
	}
	return misconfigured(fmt.Sprintf("redisregistry: %s has maxmemory-policy %s and maxmemory %s: it would evict messages and users when its memory is full; set maxmemory-policy noeviction", where, policy, limit))
}
