package deploy_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

// compose is compose.yaml, as docker compose reads it.
func compose(t *testing.T) *types.Project {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{"compose.yaml"},
		cli.WithEnv([]string{"REDIS_PASSWORD=" + chatdtest.Password, "POSTGRES_PASSWORD=" + chatdtest.Password}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// nodes are the services that run chatd-cluster.
func nodes(project *types.Project) (nodes []types.ServiceConfig) {
	for _, name := range project.ServiceNames() {
		if s := project.Services[name]; s.Build != nil {
			nodes = append(nodes, s)
		}
	}
	return nodes
}

func environment(s types.ServiceConfig) map[string]string {
	env := make(map[string]string)
	for name, value := range s.Environment {
		if value != nil {
			env[name] = *value
		}
	}
	return env
}

func TestComposeHasThreeNodesThatDrainInTime(t *testing.T) {
	project := compose(t)
	all := nodes(project)
	if len(all) != 3 {
		t.Fatalf("%d nodes", len(all))
	}
	subnet := netip.MustParsePrefix(project.Networks["chat"].Ipam.Config[0].Subnet)
	for _, s := range all {
		env := environment(s)
		checkVariables(t, slices.Collect(maps.Keys(env)))
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil || s.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("%s is built of %s in %s", s.Name, s.Build.Dockerfile, s.Build.Context)
		}
		if s.StopGracePeriod == nil || duration(t, s.StopGracePeriod.String()) <= duration(t, env["CHATD_DRAIN"]) {
			t.Errorf("%s drains for %s and is killed after %v", s.Name, env["CHATD_DRAIN"], s.StopGracePeriod)
		}
		if got := netip.MustParsePrefix(env["CHATD_TRUSTED_PROXIES"]); got != subnet {
			t.Errorf("%s trusts %s, its network is %s", s.Name, got, subnet)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.Ulimits["nofile"].Single < 100_000 {
			t.Errorf("%s: read-only %t, drops %v, files %v", s.Name, s.ReadOnly, s.CapDrop, s.Ulimits["nofile"])
		}
		checkMemory(t, env["GOMEMLIMIT"], int64(s.MemLimit))
		if len(s.Ports) > 0 {
			t.Errorf("%s is reached past the proxy", s.Name)
		}
	}
}

func TestComposeNamesWhatTheProxyIsSentTo(t *testing.T) {
	project := compose(t)
	var want []string
	for _, s := range nodes(project) {
		_, port, err := net.SplitHostPort(environment(s)["CHATD_ADDR"])
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, s.Name+":"+port)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\s*server (\S+:\d+)`).FindAllStringSubmatch(read(t, "nginx.conf"), -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-compose.yaml +nginx.conf):\n%s", diff)
	}
	mounted := make(map[string]string)
	for _, v := range project.Services["proxy"].Volumes {
		mounted[v.Target] = filepath.Base(v.Source)
	}
	if diff := cmp.Diff(map[string]string{"/etc/nginx/nginx.conf": "nginx.conf", "/etc/nginx/tls": "tls"}, mounted); diff != "" {
		t.Errorf("files of the proxy (-want +got):\n%s", diff)
	}
}

// The nodes' variables are run with as they are, but for what names other
// containers and files.
func TestComposeNodesRun(t *testing.T) {
	redis, postgres := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	env := environment(nodes(compose(t))[0])
	files := map[string]string{
		"/run/secrets/users":  chatdtest.WriteFile(t, "users", chatdtest.Users),
		"/run/secrets/secret": chatdtest.WriteFile(t, "secret", chatdtest.Secret),
	}
	for _, name := range []string{"CHATD_USERS", "CHATD_SECRET_FILE"} {
		if files[env[name]] == "" {
			t.Errorf("%s=%s is no secret of a node", name, env[name])
		}
	}
	env["CHATD_REGISTRY"] = replace(t, env["CHATD_REGISTRY"], "redis:6379", redis.Addr)
	env["CHATD_HISTORY"] = replace(t, env["CHATD_HISTORY"], "postgres:5432/chat", postgres.Addr+"/postgres")
	env["CHATD_DEBUG_ADDR"] = "127.0.0.1:0"
	delete(env, "CHATD_ADDR")
	var vars []string
	for name, value := range env {
		vars = append(vars, fmt.Sprintf("%s=%s", name, value))
	}
	d := program.Start(t, vars)
	if status, body := d.Request("GET", "/readyz", "", ""); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, _ := d.Request("GET", d.Debug+"/metrics", "", ""); status != 200 {
		t.Errorf("metrics: %d", status)
	}
	if strings.Contains(d.Logged(), chatdtest.Password) {
		t.Error("a password is in the log")
	}
}

// A service that takes all of the machine takes the others with it.
func TestComposeBoundsEachService(t *testing.T) {
	project := compose(t)
	for _, name := range project.ServiceNames() {
		if s := project.Services[name]; s.MemLimit < 256<<20 || s.MemLimit > 4<<30 || s.PidsLimit < 32 || s.PidsLimit > 4096 {
			t.Errorf("%s: memory %d, processes %d", name, s.MemLimit, s.PidsLimit)
		}
	}
	env := environment(nodes(project)[0])
	kept := regexp.MustCompile(`keepalive_timeout (\S+);`).FindStringSubmatch(read(t, "nginx.conf"))
	if kept == nil || duration(t, kept[1]) >= duration(t, env["CHATD_DRAIN_DELAY"]) {
		t.Errorf("the proxy keeps connections for %v, a node serves on for %s", kept, env["CHATD_DRAIN_DELAY"])
	}
	workers := regexp.MustCompile(`(?m)^worker_processes (\d+);`).FindStringSubmatch(read(t, "nginx.conf"))
	if workers == nil {
		t.Fatal("as many workers of the proxy as the machine has cores")
	}
	n, _ := strconv.Atoi(workers[1])
	if proxy := project.Services["proxy"]; 2*(n+1) > int(proxy.PidsLimit) || types.UnitBytes(2*n*(14<<20)) > proxy.MemLimit/4 {
		t.Errorf("%d workers of the proxy in %d bytes, %d processes", n, proxy.MemLimit, proxy.PidsLimit)
	}
	for _, s := range nodes(project) {
		stop := duration(t, s.StopGracePeriod.String())
		if took := duration(t, env["CHATD_DRAIN"]) + duration(t, env["CHATD_DRAIN_DELAY"]); stop < took+5*time.Second {
			t.Errorf("%s takes %v to end and is killed after %v", s.Name, took, stop)
		}
	}
}
