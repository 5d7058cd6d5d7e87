package deploy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of kubernetes.yaml, read strictly: a field that there
// is not, or twice, is an error.
type manifests struct {
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
	network    networkingv1.NetworkPolicy
}

func kubernetes(t *testing.T) manifests {
	t.Helper()
	var m manifests
	for _, text := range strings.Split(read(t, "kubernetes.yaml"), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatal(err)
		}
		into, known := map[metav1.TypeMeta]any{
			{Kind: "Deployment", APIVersion: "apps/v1"}:                 &m.deployment,
			{Kind: "Service", APIVersion: "v1"}:                         &m.service,
			{Kind: "PodDisruptionBudget", APIVersion: "policy/v1"}:      &m.budget,
			{Kind: "NetworkPolicy", APIVersion: "networking.k8s.io/v1"}: &m.network,
		}[kind]
		if !known {
			t.Fatalf("an object that is not checked: %+v", kind)
		}
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", kind.Kind, err)
		}
	}
	if m.deployment.Name == "" || m.service.Name == "" || m.budget.Name == "" || m.network.Name == "" {
		t.Fatal("an object is missing")
	}
	return m
}

func (m manifests) pod() corev1.PodSpec         { return m.deployment.Spec.Template.Spec }
func (m manifests) container() corev1.Container { return m.pod().Containers[0] }

func (m manifests) env() map[string]string {
	env := make(map[string]string)
	for _, v := range m.container().Env {
		env[v.Name] = v.Value
	}
	return env
}

func TestKubernetesSelectorsFindThePods(t *testing.T) {
	m := kubernetes(t)
	labels := m.deployment.Spec.Template.Labels
	for name, selector := range map[string]map[string]string{
		"Deployment":          m.deployment.Spec.Selector.MatchLabels,
		"Service":             m.service.Spec.Selector,
		"PodDisruptionBudget": m.budget.Spec.Selector.MatchLabels,
		"NetworkPolicy":       m.network.Spec.PodSelector.MatchLabels,
		"spread":              m.pod().TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if len(selector) == 0 {
			t.Errorf("%s selects everything", name)
		}
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("%s selects %s=%s, the pods have %v", name, key, value, labels)
			}
		}
	}
}

func TestKubernetesPortsAndProbesAreTheNodes(t *testing.T) {
	m := kubernetes(t)
	env := m.env()
	checkVariables(t, slices.Collect(maps.Keys(env)))

	want := map[string]string{"http": env["CHATD_ADDR"], "metrics": env["CHATD_DEBUG_ADDR"]}
	got := make(map[string]string)
	for _, p := range m.container().Ports {
		got[p.Name] = fmt.Sprint(":", p.ContainerPort)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ports (-variables +container):\n%s", diff)
	}
	if got := m.service.Spec.Ports[0].TargetPort.StrVal; got != "http" {
		t.Errorf("the service leads to port %s", got)
	}
	annotations := m.deployment.Spec.Template.Annotations
	if ":"+annotations["prometheus.io/port"] != env["CHATD_DEBUG_ADDR"] || annotations["prometheus.io/path"] != "/metrics" {
		t.Errorf("scraped at %v", annotations)
	}

	// What the probes ask is there.
	d := program.Start(t, nil, "-plaintext")
	for name, probe := range map[string]*corev1.Probe{"readiness": m.container().ReadinessProbe, "liveness": m.container().LivenessProbe} {
		if probe.HTTPGet.Port.StrVal != "http" || probe.TimeoutSeconds < 3 { // a node takes up to two to find out
			t.Errorf("%s: port %s within %d s", name, probe.HTTPGet.Port.StrVal, probe.TimeoutSeconds)
		}
		if status, _ := d.Request("GET", probe.HTTPGet.Path, "", ""); status != 200 {
			t.Errorf("%s: %s answers %d", name, probe.HTTPGet.Path, status)
		}
	}
	if m.container().LivenessProbe.HTTPGet.Path == m.container().ReadinessProbe.HTTPGet.Path {
		t.Error("a node is restarted when a backend does not answer")
	}
}

func TestKubernetesLeavesTimeToDrain(t *testing.T) {
	m := kubernetes(t)
	grace := time.Duration(*m.pod().TerminationGracePeriodSeconds) * time.Second
	pause := duration(t, m.env()["CHATD_DRAIN_DELAY"])
	// By then the pod is red, and no endpoint of the Service any more.
	probe := m.container().ReadinessProbe
	if noticed := time.Duration(probe.PeriodSeconds+probe.TimeoutSeconds) * time.Second; pause < noticed {
		t.Errorf("serves on for %v, which is noticed within %v", pause, noticed)
	}
	if drain := duration(t, m.env()["CHATD_DRAIN"]); grace < pause+drain+5*time.Second {
		t.Errorf("waits %v, drains for %v and is killed after %v", pause, drain, grace)
	}
	if n := *m.deployment.Spec.Replicas; n < 2 || m.budget.Spec.MaxUnavailable.IntValue() >= int(n) {
		t.Errorf("%d nodes of which %s may go at once", n, m.budget.Spec.MaxUnavailable)
	}
}

func TestKubernetesGivesNoMoreThanIsNeeded(t *testing.T) {
	m := kubernetes(t)
	pod, c := m.pod(), m.container()
	for what, ok := range map[string]bool{
		"runs as nobody in particular": *pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser > 0,
		"calls the kernel as usual":    pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"knows nothing of the cluster": !*pod.AutomountServiceAccountToken,
		"gains nothing":                !*c.SecurityContext.AllowPrivilegeEscalation,
		"writes nowhere":               *c.SecurityContext.ReadOnlyRootFilesystem,
		"has no capabilities":          len(c.SecurityContext.Capabilities.Drop) == 1 && c.SecurityContext.Capabilities.Drop[0] == "ALL",
		"asks for what it needs":       !c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero(),
		"has a limit on its memory":    !c.Resources.Limits.Memory().IsZero(),
		"has a limit on its files":     !c.Resources.Limits.StorageEphemeral().IsZero(),
	} {
		if !ok {
			t.Errorf("not so: it %s", what)
		}
	}
	checkMemory(t, m.env()["GOMEMLIMIT"], c.Resources.Limits.Memory().Value())
	mounted := make(map[string]bool)
	for _, item := range pod.Volumes[0].Secret.Items {
		mounted[c.VolumeMounts[0].MountPath+"/"+item.Path] = true
	}
	for _, name := range []string{"CHATD_USERS", "CHATD_SECRET_FILE"} {
		if path := m.env()[name]; !mounted[path] {
			t.Errorf("%s=%s is not mounted", name, path)
		}
	}
	if mode := *pod.Volumes[0].Secret.DefaultMode; mode&0o007 != 0 {
		t.Errorf("everybody can read the secret: %o", mode)
	}
	if pod.Volumes[0].Name != c.VolumeMounts[0].Name {
		t.Errorf("%s is mounted, %s is there", c.VolumeMounts[0].Name, pod.Volumes[0].Name)
	}
}

// Who is in a trusted network says where clients come from: it is the Ingress's alone,
// which nobody knows but who deploys it. Other pods do not reach the nodes.
func TestKubernetesTrustsAndReachesNoMoreThanIsNeeded(t *testing.T) {
	m := kubernetes(t)
	for _, v := range m.container().Env {
		if v.Name != "CHATD_TRUSTED_PROXIES" {
			continue
		}
		if v.Value != "" || v.ValueFrom == nil || v.ValueFrom.SecretKeyRef == nil || v.ValueFrom.SecretKeyRef.Key != "trusted-proxies" {
			t.Errorf("trusts %q, %+v", v.Value, v.ValueFrom)
		}
	}
	if !strings.Contains(read(t, "kubernetes.yaml"), "--from-literal=trusted-proxies=") {
		t.Error("nothing says how to name the trusted proxies")
	}
	spec := m.network.Spec
	if !slices.Equal(spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}) {
		t.Errorf("the policy is for %v", spec.PolicyTypes)
	}
	reached := make(map[string]string)
	for _, rule := range spec.Ingress {
		for _, from := range rule.From {
			if from.NamespaceSelector == nil || len(from.NamespaceSelector.MatchLabels) == 0 {
				t.Errorf("from anywhere: %+v", from)
				continue
			}
			for _, port := range rule.Ports {
				reached[port.Port.String()] = from.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
			}
		}
		if len(rule.From) == 0 || len(rule.Ports) == 0 {
			t.Errorf("a rule for all: %+v", rule)
		}
	}
	if diff := cmp.Diff(map[string]string{"http": "ingress-nginx", "metrics": "monitoring"}, reached); diff != "" {
		t.Errorf("namespaces by port (-want +got):\n%s", diff)
	}
	var out []string
	for _, rule := range spec.Egress {
		for _, port := range rule.Ports {
			out = append(out, port.Port.String())
		}
		if len(rule.Ports) == 0 {
			t.Errorf("a rule for all: %+v", rule)
		}
	}
	slices.Sort(out)
	if diff := cmp.Diff([]string{"53", "53", "5432", "6379"}, out); diff != "" {
		t.Errorf("ports that are reached (-want +got):\n%s", diff)
	}
}
