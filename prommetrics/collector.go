package prommetrics

import (
	"errors"
	"fmt"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reto10/chat"
)

// Option changes a default of [New], which returns an error if the option is invalid.
type Option func(*config) error

type config struct {
	labels prometheus.Labels
}

// WithConstLabels adds labels to every metric. They tell apart two services in one process.
// The default is none.
func WithConstLabels(labels prometheus.Labels) Option {
	return func(c *config) error {
		for name := range labels {
			if name == labelReason || name == labelPort || name == labelResult {
				return fmt.Errorf("WithConstLabels: label %q is taken by a metric; choose another name", name)
			}
		}
		c.labels = maps.Clone(labels)
		return nil
	}
}

// Labels of single metrics, which a constant label must not have.
const (
	labelReason = "reason"
	labelPort   = "port"
	labelResult = "result"
)

// Collector collects the metrics of a service. It is a [prometheus.Collector] and safe for
// concurrent use.
type Collector struct {
	service *chat.Service

	sockets, users, backlog, replay                *prometheus.Desc
	accepted, refused, slow, published, deliveries *prometheus.Desc
	commands, refusedCommands, logins, portErrors  *prometheus.Desc
	droppedPresence                                *prometheus.Desc
	publishDuration, fanOutDuration                *prometheus.Desc
}

// New returns a collector for a service. The caller registers it.
func New(service *chat.Service, opts ...Option) (*Collector, error) {
	if service == nil {
		return nil, errors.New("prommetrics: service is nil")
	}
	var cfg config
	for _, opt := range opts {
		if err := opt(&cfg); err != nil {
			return nil, fmt.Errorf("prommetrics: %w", err)
		}
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("chat", "", name), help, labels, cfg.labels)
	}
	c := &Collector{
		service:         service,
		sockets:         desc("sockets", "Live WebSockets."),
		users:           desc("users", "Users with WebSockets on this process."),
		backlog:         desc("backlog_bytes", "Bytes that wait for slow clients: on WebSockets, and in pages of the history."),
		replay:          desc("replay_bytes", "Bytes of missed messages that are kept for clients that resume."),
		accepted:        desc("accepted_sockets_total", "Accepted WebSockets."),
		refused:         desc("refused_handshakes_total", "WebSocket handshakes answered with an error, by reason.", labelReason),
		slow:            desc("slow_closed_sockets_total", "WebSockets closed because their backlog was too large or too old."),
		published:       desc("published_messages_total", "Messages stored and published by this process."),
		deliveries:      desc("deliveries_total", "Events delivered to WebSockets: messages times receivers."),
		droppedPresence: desc("dropped_presence_total", "Joins and leaves never announced here: more happened than are kept while this process was disconnected from the registry."),
		commands:        desc("commands_total", "Frames from clients."),
		refusedCommands: desc("refused_commands_total", "Frames from clients answered with an error, by its code.", labelReason),
		logins:          desc("logins_total", "Logins, by result: ok or refused.", labelResult),
		portErrors:      desc("port_errors_total", "Failures of ports (authenticator, history, policy, registry), by reason: timeout or other.", labelPort, labelReason),
		publishDuration: desc("publish_duration_seconds", "Time to store and publish a message."),
		fanOutDuration:  desc("fanout_duration_seconds", "Time from publishing a message to its write to the last WebSocket of a shard."),
	}
	// A registry validates the descriptions, and so the labels.
	if err := prometheus.NewPedanticRegistry().Register(c); err != nil {
		return nil, fmt.Errorf("prommetrics: %w", err)
	}
	return c, nil
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.sockets, c.users, c.backlog, c.replay,
		c.accepted, c.refused, c.slow, c.published, c.deliveries, c.droppedPresence,
		c.commands, c.refusedCommands, c.logins, c.portErrors,
		c.publishDuration, c.fanOutDuration,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	s := c.service.Stats()
	gauge := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(c.sockets, float64(s.Sockets))
	gauge(c.users, float64(s.Users))
	gauge(c.backlog, float64(s.BacklogBytes))
	gauge(c.replay, float64(s.ReplayBytes))
	counter(c.accepted, s.Accepted)
	counter(c.slow, s.SlowClosed)
	counter(c.published, s.Published)
	counter(c.deliveries, s.Deliveries)
	counter(c.droppedPresence, s.DroppedPresence)
	counter(c.commands, s.Commands)
	counter(c.logins, s.Logins, "ok")
	counter(c.logins, s.RefusedLogins, "refused")
	for reason, n := range s.RefusedBy {
		counter(c.refused, n, reason)
	}
	for reason, n := range s.RefusedCommandsBy {
		counter(c.refusedCommands, n, reason)
	}
	for port, n := range s.PortErrors {
		counter(c.portErrors, n.Timeouts, port, "timeout")
		counter(c.portErrors, n.Others, port, "other")
	}
	to <- histogram(c.publishDuration, s.Publish)
	to <- histogram(c.fanOutDuration, s.FanOut)
}

func histogram(d *prometheus.Desc, h chat.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		buckets[bound] = h.Counts[i]
	}
	return prometheus.MustNewConstHistogram(d, h.Count, h.Sum, buckets)
}
