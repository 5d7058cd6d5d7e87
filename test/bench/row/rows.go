package row

import "context"

// Row is a measurement of one server.
type Row struct {
	Name  string
	Kinds []string // the servers that it is for, in the order of a run
	Quick bool     // part of a quick run
	Soak  bool     // only run when asked for
	Run   func(l *Lab, ctx context.Context, kind string) (Values, error)
}

var (
	chats    = []string{"chat", "gws", "gorilla", "melody", "nhooyr", "centrifuge"}
	withBase = []string{"chat", "write", "gws", "gorilla", "gorilla-joined", "melody", "nhooyr", "centrifuge"}
	oursOnly = []string{"chat"}
)

// Rows are all there are, most important first.
var Rows = []Row{
	{Name: "fanout", Kinds: withBase, Quick: true, Run: (*Lab).fanoutPlain},
	{Name: "direct", Kinds: []string{"chat", "write", "gws", "gorilla", "melody", "nhooyr", "centrifuge"}, Run: (*Lab).direct},
	{Name: "post", Kinds: []string{"chat", "write"}, Run: (*Lab).post},
	{Name: "reconnect", Kinds: []string{"chat", "centrifuge"}, Run: (*Lab).reconnect},
	{Name: "sockets", Kinds: chats, Quick: true, Run: (*Lab).socketsPlain},
	{Name: "tls", Kinds: withBase, Run: (*Lab).fanoutTLS},
	{Name: "tls-sockets", Kinds: chats, Run: (*Lab).socketsTLS},
	{Name: "latency", Kinds: chats, Run: (*Lab).latency},
	{Name: "slow", Kinds: []string{"chat", "gorilla", "centrifuge"}, Run: (*Lab).slow},
	{Name: "channels", Kinds: []string{"chat", "centrifuge"}, Run: (*Lab).channels},
	{Name: "presence", Kinds: oursOnly, Run: (*Lab).presence},
	{Name: "scaling", Kinds: []string{"chat", "write", "gws", "centrifuge"}, Run: (*Lab).scaling},
	{Name: "soak", Kinds: oursOnly, Soak: true, Run: (*Lab).soak},
}

// Names are those of the rows.
func Names() []string {
	names := make([]string, len(Rows))
	for i, r := range Rows {
		names[i] = r.Name
	}
	return names
}
