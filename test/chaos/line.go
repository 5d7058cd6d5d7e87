package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// line is a proxy between a client and a server. It can be cut, delay bytes, and drop bytes.
type line struct {
	address string // of its near end
	proxy   *toxiproxy.Proxy
	disturbance

	mu sync.Mutex // held while the proxy is stopped, started or led elsewhere
}

// lines makes lines.
type lines struct{ api *toxiproxy.ApiServer }

func newLines() lines {
	return lines{toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

func (l lines) to(name, upstream string) (*line, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	proxy := toxiproxy.NewProxy(l.api, name, local(port), upstream)
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("starting the proxy of %s: %w", name, err)
	}
	return &line{address: local(port), proxy: proxy}, nil
}

// cut closes all connections and accepts no new ones until mend.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proxy.Stop()
}

func (l *line) mend() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proxy.Start()
}

// lead closes all connections and connects later ones to another server. A line that is cut
// stays cut.
func (l *line) lead(upstream string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proxy.Update(&toxiproxy.Proxy{Listen: l.proxy.Listen, Upstream: upstream, Enabled: l.proxy.Enabled})
}

// toxic is what a line does to its bytes, in both directions.
type toxic struct {
	Type       string         `json:"type"`
	Name       string         `json:"name"`
	Stream     string         `json:"stream"`
	Attributes map[string]any `json:"attributes"`
}

var directions = []string{"upstream", "downstream"}

// poison applies a toxic to all connections, open and new, until it is cured.
func (l *line) poison(kind string, attributes map[string]any) error {
	for _, direction := range directions {
		b, err := json.Marshal(toxic{kind, kind + direction, direction, attributes})
		if err != nil {
			return err
		}
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(b))); err != nil {
			return fmt.Errorf("making %s %s: %w", l.proxy.Name, kind, err)
		}
	}
	return nil
}

func (l *line) cure(ctx context.Context, kind string) error {
	for _, direction := range directions {
		if err := l.proxy.Toxics.RemoveToxic(ctx, kind+direction); err != nil {
			return fmt.Errorf("ending that %s is %s: %w", l.proxy.Name, kind, err)
		}
	}
	return nil
}

// disturbance records whether a fault that ends sockets is present or was recently.
type disturbance struct {
	under atomic.Int32 // faults under way, and those just over
}

func (d *disturbance) begin() { d.under.Add(1) }
func (d *disturbance) end()   { d.under.Add(-1) }

func (d *disturbance) disturbed() bool { return d.under.Load() > 0 }
