package redisregistry

import (
	"crypto/rand"
	"strconv"
	"strings"
)

// Channels are hashed to buckets: named channels to 32, user channels to 32 others, everyone's
// channel to its own. The keys of a bucket share a hash tag, so that a Cluster keeps them on
// one node and one script can use them. The fewer there are, the more messages of a batch
// share one. A bucket with too many channels begins a new era; a user who publishes to many
// names can cause this, but never for everyone's channel.
const (
	spread   = 32
	everyone = 2 * spread // the bucket of everyone's channel
	buckets  = everyone + 1
)

// presenceTag is the hash tag of all keys about connected users.
const presenceTag = "presence"

func bucketOf(channel string) int {
	if channel == "" {
		return everyone
	}
	hash := uint32(2166136261) // FNV-1a; that of hash/fnv takes two allocations
	for i := range len(channel) {
		hash = (hash ^ uint32(channel[i])) * 16777619
	}
	bucket := int(hash % spread)
	if strings.HasPrefix(channel, "@") {
		bucket += spread
	}
	return bucket
}

func bucketTag(channel string) string { return strconv.Itoa(bucketOf(channel)) }

// newEra returns a name for an era.
func newEra() string { return strings.ToLower(rand.Text()[:16]) }

// newNode returns a name for a node.
func newNode() string { return strings.ToLower(rand.Text()) }

// keys are the names of keys in Redis, and of topics: the channels of its pub/sub, which have
// the same hash tags.
type keys struct{ prefix string }

func (k keys) in(tag, name string) string { return k.prefix + "{" + tag + "}:" + name }

// positions is a hash. Field "!" is the era, "@" the run of Redis that used it last, and ":"
// with a channel's name that channel's last seq. It is one key, so that no part is lost without
// the others.
func (k keys) positions(channel string) string { return k.positionsOf(bucketTag(channel)) }
func (k keys) positionsOf(tag string) string   { return k.in(tag, "positions") }

// positionField is a channel's field in the positions.
func positionField(channel string) string { return ":" + channel }

// stream has a channel's messages, see age.lua. topic is where they are published. It has the
// same name: a script gets one argument less.
func (k keys) stream(channel string) string {
	return string(k.appendStream(nil, bucketTag(channel), channel))
}
func (k keys) topic(channel string) string { return k.stream(channel) }

// appendStream appends the name of a channel's stream.
func (k keys) appendStream(to []byte, tag, channel string) []byte {
	for _, s := range []string{k.prefix, "{", tag, "}:m:", channel} {
		to = append(to, s...)
	}
	return to
}

// call has the result of a call that stored messages.
func (k keys) call(tag, name string) string { return k.in(tag, "n:"+name) }

func (k keys) leases() string              { return k.in(presenceTag, "leases") }
func (k keys) presenceEra() string         { return k.in(presenceTag, "era") }
func (k keys) events() string              { return k.in(presenceTag, "events") }
func (k keys) eventCount() string          { return k.in(presenceTag, "events#") }
func (k keys) left() string                { return k.in(presenceTag, "left") }
func (k keys) leftSizes() string           { return k.in(presenceTag, "left:sizes") }
func (k keys) histories() string           { return k.in(presenceTag, "histories") }
func (k keys) users(channel string) string { return k.in(presenceTag, "c:"+channel) }
func (k keys) entries(node string) string  { return k.in(presenceTag, "e:"+node) }
func (k keys) version(node string) string  { return k.in(presenceTag, "v:"+node) }

// orders is a stream of what all nodes must do. newestOrder is the number and the id of the
// last entry.
func (k keys) orders() string      { return k.in(presenceTag, "orders") }
func (k keys) newestOrder() string { return k.in(presenceTag, "orders#") }

// eventTopic signals new events, orderTopic new orders. nodeTopic asks a node whether it is
// alive.
func (k keys) eventTopic() string           { return k.in(presenceTag, "told") }
func (k keys) orderTopic() string           { return k.in(presenceTag, "ordered") }
func (k keys) nodeTopic(node string) string { return k.in(presenceTag, "asked:"+node) }

// probeTopic is where a node receives its own probes, on the link of the keys with that tag.
func (k keys) probeTopic(tag, node string) string { return k.in(tag, "probe:"+node) }

// tagOf returns the hash tag in a name.
func (k keys) tagOf(name string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(name, k.prefix+"{"), "}")
	return tag
}
