// Package prommetrics shows a [chat.Service]'s figures to Prometheus.
//
//	collector, err := prommetrics.New(service)
//	…
//	prometheus.MustRegister(collector)
//	http.Handle("/metrics", promhttp.Handler())
//
// The metrics are those of [chat.Service.Stats], read when they are asked for:
//
//	chat_sockets, chat_users, chat_backlog_bytes                gauges
//	chat_accepted_sockets_total, chat_slow_closed_sockets_total
//	chat_refused_handshakes_total{reason}
//	chat_published_messages_total, chat_deliveries_total
//	chat_dropped_presence_total
//	chat_commands_total, chat_refused_commands_total{reason}
//	chat_logins_total{result}
//	chat_port_errors_total{port, reason}
//	chat_publish_duration_seconds, chat_fanout_duration_seconds histograms
//
// No metric has a label for users, channels or sockets: what there may be any
// number of is not for a label. All are this process's: sum over the nodes, but
// for chat_users, where a user may be on several.
package prommetrics
