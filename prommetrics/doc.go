// Package prommetrics exports the statistics of a [chat.Service] to Prometheus.
//
//	collector, err := prommetrics.New(service)
//	…
//	prometheus.MustRegister(collector)
//	http.Handle("/metrics", promhttp.Handler())
//
// The metrics are those of [chat.Service.Stats], read at each scrape:
//
//	chat_sockets, chat_users, chat_backlog_bytes                gauges
//	chat_replay_bytes                                           gauge
//	chat_accepted_sockets_total, chat_slow_closed_sockets_total
//	chat_refused_handshakes_total{reason}
//	chat_published_messages_total, chat_deliveries_total
//	chat_dropped_presence_total
//	chat_commands_total, chat_refused_commands_total{reason}
//	chat_logins_total{result}
//	chat_port_errors_total{port, reason}
//	chat_publish_duration_seconds, chat_fanout_duration_seconds histograms
//
// No metric has a label for users, channels or sockets, whose number is unbounded. All
// metrics are those of this process. Sum them over the nodes, except chat_users: a user
// may be connected to several nodes.
package prommetrics
