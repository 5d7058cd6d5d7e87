package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	grafana "github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"nhooyr.io/websocket"
	"sigs.k8s.io/yaml"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// startServer runs a program that serves HTTP at an address until the test ends.
func startServer(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(chatdtest.Needs(t, name), args...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was asked to
		log.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", name, read(t, log.Name()))
		}
	})
	wstest.Eventually(t, name+" to listen", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// prometheus is one that runs prometheus.yaml.
type prometheus struct {
	t      *testing.T
	addr   string
	client *http.Client
}

// startPrometheus runs prometheus.yaml with alerts.yaml and a blackbox exporter,
// these nodes for two of its own, and for the third one that is not there. What it
// does every 15 seconds it does every second.
func startPrometheus(t *testing.T, one, two *chatdtest.Process) *prometheus {
	t.Helper()
	blackbox := chatdtest.FreeAddr(t)
	startServer(t, blackbox, "prometheus-blackbox-exporter", "--web.listen-address="+blackbox,
		"--config.file="+chatdtest.WriteFile(t, "blackbox.yml", "modules: {http_2xx: {prober: http}}\n"))
	host := func(address string) string { return strings.TrimPrefix(address, "http://") }
	conf := replace(t, read(t, "prometheus.yaml"),
		"interval: 15s", "interval: 1s",
		"rule_files:", "  scrape_timeout: 1s\nrule_files:",
		"chatd1:6060", host(one.Debug), "chatd1:8080", host(one.URL),
		"chatd2:6060", host(two.Debug), "chatd2:8080", host(two.URL),
		"chatd3:6060", "127.0.0.1:1", "chatd3:8080", "127.0.0.1:1",
		"blackbox:9115", blackbox,
	)
	path := chatdtest.WriteFile(t, "prometheus.yml", conf)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "alerts.yaml"), []byte(read(t, "alerts.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{t, chatdtest.FreeAddr(t), one.HTTP}
	startServer(t, p.addr, "prometheus", "--config.file="+path, "--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+p.addr)
	wstest.Eventually(t, "Prometheus to answer", func() bool {
		return p.ask("query", url.Values{"query": {"up"}}, new(any)) == nil // for a while it says that it is not ready
	})
	return p
}

// ask asks its HTTP API and reads the answer's data.
func (p *prometheus) ask(path string, query url.Values, data any) error {
	resp, err := p.client.Get("http://" + p.addr + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return nil
}

// series are those that an expression has a value for, with their labels.
func (p *prometheus) series(expr string) []map[string]string {
	p.t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.ask("query", url.Values{"query": {expr}}, &data); err != nil {
		p.t.Fatalf("%s: %v", expr, err)
	}
	var found []map[string]string
	for _, r := range data.Result {
		if r.Value[1] != "NaN" {
			found = append(found, r.Metric)
		}
	}
	return found
}

// panel is what Prometheus is asked for one.
type panel struct {
	ID      int
	Type    string
	Title   string
	Targets []struct {
		Expr         string
		LegendFormat string
	}
	GridPos struct{ X, Y, W, H int }
}

// board is grafana.json, as far as the tests look at it.
type board struct {
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func readBoard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "grafana.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheDashboardIsOne(t *testing.T) {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterDataqueryVariant(grafana.VariantConfig())
	check := func(text string) string {
		//lint:ignore SA1019 every Grafana imports this schema, only the latest the next one
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict([]byte(text)); err != nil && err.Error() != "" { // none is an empty list
			return err.Error()
		}
		if err := d.Validate(); err != nil {
			return err.Error()
		}
		return ""
	}
	text := read(t, "grafana.json")
	if found := check(text); found != "" {
		t.Error(found)
	}
	for _, field := range []string{`"legendFormat"`, `"lineWidth"`, `"gridPos"`, `"reduceOptions"`} {
		if check(replace(t, text, field, `"unknown"`)) == "" {
			t.Errorf("an unknown field instead of %s is let pass", field)
		}
	}
	b := readBoard(t)
	ids := make(map[int]bool)
	for i, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s has the id of another panel", p.Title)
		}
		ids[p.ID] = true
		for _, q := range b.Panels[:i] {
			a, c := p.GridPos, q.GridPos
			if a.X < c.X+c.W && c.X < a.X+a.W && a.Y < c.Y+c.H && c.Y < a.Y+a.H || a.X+a.W > 24 {
				t.Errorf("%s lies on %s, or beyond the right edge", p.Title, q.Title)
			}
		}
	}
}

// asSent is an expression as Grafana would send it.
var asSent = strings.NewReplacer("$__rate_interval", "1m", "$job", "chatd", "$instance", ".+")

func TestDashboardAndAlerts(t *testing.T) {
	redis := chatdtest.StartRedis(t)
	start := func() *chatdtest.Process {
		return program.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()}, "-plaintext", "-debug-addr", "127.0.0.1:0")
	}
	one, two := start(), start()
	p := startPrometheus(t, one, two)
	admin := one.Token("admin")
	for _, d := range []*chatdtest.Process{one, two} {
		ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
		defer cancel()
		conn, _, err := websocket.Dial(ctx, d.URL+"/ws/chat?token="+admin, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
	}

	// Each panel has something to show while there are messages and logins.
	var lastLogin time.Time
	board := readBoard(t)
	all := ""
	for _, panel := range board.Panels {
		if (panel.Type == "row") != (len(panel.Targets) == 0) {
			t.Errorf("%s has %d expressions", panel.Title, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			all += target.Expr + "\n"
			expr := asSent.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: an unknown variable in %s", panel.Title, target.Expr)
			}
			var series []map[string]string
			wstest.Eventually(t, "a value of "+expr, func() bool {
				publish(t, one, admin, http.StatusCreated)
				if time.Since(lastLogin) > time.Second { // more of them are refused, in the end
					two.Token("user")
					lastLogin = time.Now()
				}
				series = p.series(expr)
				return len(series) > 0
			})
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if series[0][m[1]] == "" {
					t.Errorf("%s: %s has no label %s", panel.Title, expr, m[1])
				}
			}
			if !strings.Contains(target.LegendFormat, "{{") && len(series) > 1 {
				t.Errorf("%s: %d series of one name: %s", panel.Title, len(series), expr)
			}
		}
	}
	checkVariableQueries(t, p, board)

	_, exported := one.Request("GET", one.Debug+"/metrics", "", "")
	families := regexp.MustCompile(`(?m)^# TYPE (chat_\w+) `).FindAllStringSubmatch(exported, -1)
	if len(families) == 0 {
		t.Fatalf("no metrics:\n%s", exported)
	}
	for _, m := range families {
		if !regexp.MustCompile(`\b` + m[1] + `(_bucket)?\{`).MatchString(all) {
			t.Errorf("%s is in no panel", m[1])
		}
	}

	// A node that is not there is noticed, and that the others are without Redis.
	redis.End()
	wstest.Eventually(t, "alerts", func() bool {
		publish(t, one, admin, http.StatusServiceUnavailable)
		return slices.Equal(p.alerts(), []string{"ChatFailing", "ChatNodeGone", "ChatNotReady"})
	})
	checkRules(t, p)
}

func publish(t *testing.T, d *chatdtest.Process, token string, want int) {
	t.Helper()
	if status, body := d.Request("POST", "/messages", token, `{"content":"x"}`); status != want {
		t.Fatalf("posting: %d %s, want %d", status, body, want)
	}
}

// checkVariableQueries asks what Grafana asks for the variables' values.
func checkVariableQueries(t *testing.T, p *prometheus, board board) {
	t.Helper()
	want := map[string]int{"job": 1, "instance": 2} // how many values
	for _, v := range board.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(asSent.Replace(v.Definition))
		if m == nil {
			t.Fatalf("variable %s: %s", v.Name, v.Definition)
		}
		var values []string
		if err := p.ask("label/"+m[2]+"/values", url.Values{"match[]": {m[1]}}, &values); err != nil {
			t.Errorf("variable %s: %v", v.Name, err)
		}
		if len(values) != want[v.Name] {
			t.Errorf("variable %s has the values %v", v.Name, values)
		}
		delete(want, v.Name)
	}
	if len(want) > 0 {
		t.Errorf("no variables %v", want)
	}
}

// alerts are the names of those that are pending or fire.
func (p *prometheus) alerts() (names []string) {
	p.t.Helper()
	var data struct {
		Alerts []struct{ Labels, Annotations map[string]string }
	}
	if err := p.ask("alerts", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	for _, a := range data.Alerts {
		names = append(names, a.Labels["alertname"])
		if text := a.Annotations["summary"]; text == "" || strings.Contains(text, "{{") || strings.Contains(text, "<no value>") || a.Annotations["description"] == "" {
			p.t.Errorf("%s says %q", names[len(names)-1], a.Annotations)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkRules finds rules that Prometheus cannot evaluate.
func checkRules(t *testing.T, p *prometheus) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.ask("rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" || r.LastError != "" {
				t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if len(data.Groups) != 1 || len(data.Groups[0].Rules) < 6 {
		t.Errorf("rules %v", data.Groups)
	}
}

func TestPromtoolIsContent(t *testing.T) {
	promtool := chatdtest.Needs(t, "promtool")
	// An alert's texts would have to be repeated in what it tests.
	var rules struct {
		Groups []struct {
			Name  string           `json:"name"`
			Rules []map[string]any `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	tests := read(t, "alerts_test.yaml")
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			delete(r, "annotations")
			if n := strings.Count(tests, fmt.Sprintf("alertname: %s\n        exp_alerts:", r["alert"])); n == 0 {
				t.Errorf("no test in which %s fires", r["alert"])
			}
		}
	}
	without, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"alerts.yaml": string(without), "alerts_test.yaml": tests} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", "alerts.yaml"},
		{"check", "config", "--lint-fatal", "prometheus.yaml"},
		{"test", "rules", filepath.Join(dir, "alerts_test.yaml")},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// What prometheus.yaml scrapes are the nodes of compose.yaml.
func TestPrometheusKnowsTheNodesOfCompose(t *testing.T) {
	var want []string
	for _, s := range nodes(compose(t)) {
		env := environment(s)
		want = append(want, s.Name+env["CHATD_DEBUG_ADDR"], "http://"+s.Name+env["CHATD_ADDR"]+"/readyz")
	}
	var conf struct {
		Jobs []struct {
			Static []struct {
				Targets []string `json:"targets"`
			} `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus.yaml")), &conf); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, job := range conf.Jobs {
		for _, s := range job.Static {
			got = append(got, s.Targets...)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-compose.yaml +prometheus.yaml):\n%s", diff)
	}
}
