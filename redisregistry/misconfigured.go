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

// ErrMisconfigured is wrapped by errors that do not go away by waiting: Redis or the
// nodes have to be set up otherwise.
var ErrMisconfigured = errors.New("misconfigured")

// misconfigured is an error that says what to change, in one line.
type misconfigured string

func (m misconfigured) Error() string        { return string(m) }
func (m misconfigured) Is(target error) bool { return target == ErrMisconfigured }

// refuse has the registry not be ready as long as err stands at that reason; nil
// takes it away. What is new is logged.
func (r *Registry) refuse(reason *atomic.Pointer[outage], err error) {
	if err == nil {
		reason.Store(nil)
		return
	}
	if before := reason.Swap(&outage{err}); before == nil || before.cause.Error() != err.Error() {
		r.cfg.logger.Error("this node cannot serve", "error", err)
	}
}

// refused is why the registry is not ready although Redis answers, or nil.
func (r *Registry) refused() error {
	for _, reason := range []*atomic.Pointer[outage]{&r.evicts, &r.differs} {
		if why := reason.Load(); why != nil {
			return why.cause
		}
	}
	return nil
}

// checkEviction refuses a Redis that would drop keys when it is full: positions
// would be given twice, and users who are there would leave. A Redis that does not
// say is taken for one that does not.
func (r *Registry) checkEviction(ctx context.Context) error {
	_, err := bounded(ctx, r.server, func(ctx context.Context) (none struct{}, err error) {
		check := func(ctx context.Context, client *redis.Client) error {
			return evicts(ctx, client, client.Options().Addr)
		}
		switch c := r.client.(type) {
		case *redis.ClusterClient:
			return none, c.ForEachMaster(ctx, check)
		default:
			return none, evicts(ctx, c, "")
		}
	})
	if err != nil && !errors.Is(err, ErrMisconfigured) {
		return nil // it does not answer, as others will find out
	}
	r.refuse(&r.evicts, err)
	return err
}

func evicts(ctx context.Context, client redis.Cmdable, addr string) error {
	info, err := client.Info(ctx, "memory").Result()
	if err != nil {
		return nil // not allowed, perhaps
	}
	values := make(map[string]string)
	for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		values[name] = strings.TrimSpace(value)
	}
	limit, policy := values["maxmemory"], values["maxmemory_policy"]
	if limit == "" || limit == "0" || policy == "" || policy == "noeviction" {
		return nil
	}
	where := "Redis"
	if addr != "" {
		where += " at " + addr
	}
	return misconfigured(fmt.Sprintf("redisregistry: %s has maxmemory-policy %s and maxmemory %s: it would drop messages and users when it is full; set maxmemory-policy noeviction", where, policy, limit))
}
