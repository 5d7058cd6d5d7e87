package redisregistry

import (
	"crypto/rand"
	"hash/fnv"
	"strconv"
	"strings"
)

// buckets are what channels are spread over: those of any name, users' channels over as
// many others, and everyone's has one for itself. All keys of one have the same hash
// tag, so that a Redis Cluster keeps them on one node and a script may use them
// together. A bucket whose channels are too many begins a new era, which those who may
// publish to any name can bring about: it is not that of everyone's channel.
const (
	spread   = 256
	everyone = 2 * spread // the bucket of everyone's channel
	buckets  = everyone + 1
)

// presenceTag is the hash tag of all that is about who is connected.
const presenceTag = "presence"

func bucketOf(channel string) int {
	if channel == "" {
		return everyone
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel)) // never fails
	bucket := int(h.Sum32() % spread)
	if strings.HasPrefix(channel, "@") {
		bucket += spread
	}
	return bucket
}

func bucketTag(channel string) string { return strconv.Itoa(bucketOf(channel)) }

// newEra names an era, or a node.
func newEra() string { return strings.ToLower(rand.Text()[:16]) }

// newNode names a node.
func newNode() string { return strings.ToLower(rand.Text()) }

// keys names what is kept in Redis, and topics, the channels of its pub/sub, which
// are spread in the same way.
type keys struct{ prefix string }

func (k keys) in(tag, name string) string { return k.prefix + "{" + tag + "}:" + name }

// places is a hash: "!" the era, "@" the run of Redis that used it last, ":" and a
// channel that channel's last seq. All in one, so that none is ever lost without the
// others.
func (k keys) positions(channel string) string { return k.positionsOf(bucketTag(channel)) }
func (k keys) positionsOf(tag string) string   { return k.in(tag, "places") }

// stream has a channel's messages; an entry's id is the seq and "-0".
func (k keys) stream(channel string) string { return k.in(bucketTag(channel), "s:"+channel) }

// call has what a call that stored a message was told.
func (k keys) call(channel, name string) string { return k.in(bucketTag(channel), "n:"+name) }

func (k keys) topic(channel string) string { return k.in(bucketTag(channel), "p:"+channel) }

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

// orders is a stream of what all nodes are to do, newestOrder the number and the id
// of the last one.
func (k keys) orders() string      { return k.in(presenceTag, "orders") }
func (k keys) newestOrder() string { return k.in(presenceTag, "orders#") }

// eventTopic says that there are new events, orderTopic that there are new orders,
// nodeTopic that a node is asked whether it answers.
func (k keys) eventTopic() string           { return k.in(presenceTag, "told") }
func (k keys) orderTopic() string           { return k.in(presenceTag, "ordered") }
func (k keys) nodeTopic(node string) string { return k.in(presenceTag, "asked:"+node) }

// probeTopic is where a node hears itself, by way of the keys with that tag.
func (k keys) probeTopic(tag, node string) string { return k.in(tag, "probe:"+node) }

// tagOf is the hash tag in a name.
func (k keys) tagOf(name string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(name, k.prefix+"{"), "}")
	return tag
}
