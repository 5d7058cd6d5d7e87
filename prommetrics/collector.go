package prommetrics

import (
	"errors"
	"fmt"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reto10/chat"
)

// Option changes a default of [New]. One that makes no sense is New's error.
type Option func(*config) error

type config struct {
	labels prometheus.Labels
}

// WithConstLabels puts labels on every metric, none by default: to tell two
// services in one process apart.
func WithConstLabels(labels prometheus.Labels) Option {
	return func(c *config) error {
		for name := range labels {
			if name == labelReason || name == labelPort || name == labelResult {
				return fmt.Errorf("WithConstLabels: %q is a label of some metrics already", name)
			}
		}
		c.labels = maps.Clone(labels)
		return nil
	}
}

// Labels of the metrics that have one.
const (
	labelReason = "reason"
	labelPort   = "port"
	labelResult = "result"
)

// Collector reads a service's figures whenever it is asked, and keeps none. It is
// a [prometheus.Collector] and safe for concurrent use.
type Collector struct {
	service *chat.Service

	sockets, users, backlog                        *prometheus.Desc
	accepted, refused, slow, published, deliveries *prometheus.Desc
	commands, refusedCommands, logins, portErrors  *prometheus.Desc
	droppedPresence                                *prometheus.Desc
	publishDuration, fanOutDuration                *prometheus.Desc
}

// New makes a collector of a service's figures. It is not registered anywhere yet.
func New(service *chat.Service, opts ...Option) (*Collector, error) {
	if service == nil {
		return nil, errors.New("prommetrics: no service")
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
		users:           desc("users", "Users who have WebSockets on this process."),
		backlog:         desc("backlog_bytes", "Bytes that wait for clients that read slowly: WebSockets, and pages of the history."),
		accepted:        desc("accepted_sockets_total", "WebSockets that were accepted."),
		refused:         desc("refused_handshakes_total", "WebSocket handshakes that were answered with an error, by why.", labelReason),
		slow:            desc("slow_closed_sockets_total", "WebSockets that were closed because of their backlog."),
		published:       desc("published_messages_total", "Messages that were stored and handed on."),
		deliveries:      desc("deliveries_total", "Events that were handed to WebSockets: messages times receivers."),
		droppedPresence: desc("dropped_presence_total", "Joins and leaves that were never announced here: more happened than are kept while this process was away."),
		commands:        desc("commands_total", "Frames from clients."),
		refusedCommands: desc("refused_commands_total", "Frames from clients that were answered with an error, by its code.", labelReason),
		logins:          desc("logins_total", "Logins, by whether they were ok or refused.", labelResult),
		portErrors:      desc("port_errors_total", "Failures of what the service asks (authenticator, history, policy, registry), by whether no answer came in time.", labelPort, labelReason),
		publishDuration: desc("publish_duration_seconds", "Time to store a message and to hand it on."),
		fanOutDuration:  desc("fanout_duration_seconds", "Time from a message's being handed on to its being written to the last WebSocket of a share of them."),
	}
	// A registry finds whatever is wrong with a description.
	if err := prometheus.NewPedanticRegistry().Register(c); err != nil {
		return nil, fmt.Errorf("prommetrics: %w", err)
	}
	return c, nil
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.sockets, c.users, c.backlog,
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
