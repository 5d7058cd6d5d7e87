package deploy_test

import (
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// parse reads a YAML file of the repository into a value that has all its fields.
func parse(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(read(t, filepath.Join("..", name))), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// directoriesWith lists the directories of the repository that have such a file, as
// Dependabot writes them, sorted.
func directoriesWith(t *testing.T, file string) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case entry.Name() == file:
			inside, err := filepath.Rel("..", filepath.Dir(name))
			dirs = append(dirs, path.Join("/", filepath.ToSlash(inside)))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(dirs)
	return dirs
}

func TestDependabotUpdatesEveryModule(t *testing.T) {
	t.Parallel()
	var config struct {
		Version int `json:"version"`
		Updates []struct {
			Ecosystem   string         `json:"package-ecosystem"`
			Directory   string         `json:"directory"`
			Directories []string       `json:"directories"`
			Schedule    map[string]any `json:"schedule"`
			Groups      map[string]any `json:"groups"`
		} `json:"updates"`
	}
	parse(t, ".github/dependabot.yml", &config)
	got := make(map[string][]string)
	for _, u := range config.Updates {
		dirs := u.Directories
		if u.Directory != "" {
			dirs = append(dirs, u.Directory)
		}
		slices.Sort(dirs)
		got[u.Ecosystem] = dirs
		if u.Schedule["interval"] == nil {
			t.Errorf("%s: no interval", u.Ecosystem)
		}
	}
	want := map[string][]string{
		"gomod":          directoriesWith(t, "go.mod"),
		"npm":            directoriesWith(t, "package-lock.json"),
		"github-actions": {"/"},
	}
	if diff := cmp.Diff(want, got); diff != "" || config.Version != 2 {
		t.Errorf("dependabot.yml, version %d (-repository +file):\n%s", config.Version, diff)
	}
}

func TestTheWorkflowRunsWhatAChangeHasToPass(t *testing.T) {
	t.Parallel()
	var workflow struct {
		Name        string            `json:"name"`
		On          map[string]any    `json:"true"` // "on" in YAML 1.1
		Permissions map[string]string `json:"permissions"`
		Concurrency struct {
			Group  string `json:"group"`
			Cancel bool   `json:"cancel-in-progress"`
		} `json:"concurrency"`
		Jobs map[string]struct {
			RunsOn    string            `json:"runs-on"`
			Timeout   int               `json:"timeout-minutes"`
			Container map[string]string `json:"container"`
			Steps     []struct {
				Name string         `json:"name"`
				Uses string         `json:"uses"`
				Run  string         `json:"run"`
				With map[string]any `json:"with"`
			} `json:"steps"`
		} `json:"jobs"`
	}
	parse(t, ".github/workflows/ci.yml", &workflow)
	for _, event := range []string{"push", "pull_request"} {
		if _, ok := workflow.On[event]; !ok {
			t.Errorf("%s does not start it", event)
		}
	}
	if diff := cmp.Diff(map[string]string{"contents": "read"}, workflow.Permissions); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	if !workflow.Concurrency.Cancel || workflow.Concurrency.Group == "" {
		t.Error("an older run of a branch is not cancelled")
	}
	pinned := regexp.MustCompile(`@(v\d+|[0-9a-f]{40})$`)
	runs, goVersion := false, ""
	for name, job := range workflow.Jobs {
		if job.Timeout <= 0 {
			t.Errorf("job %s has no timeout", name)
		}
		for _, step := range job.Steps {
			runs = runs || strings.TrimSpace(step.Run) == ".ci/run"
			if step.Uses != "" && !pinned.MatchString(step.Uses) {
				t.Errorf("job %s: %s is not pinned", name, step.Uses)
			}
			if file, ok := step.With["go-version-file"].(string); ok {
				goVersion = file
			}
		}
	}
	if !runs {
		t.Error("no step runs .ci/run")
	}
	if goVersion != "go.mod" {
		t.Errorf("Go's version is from %q, want go.mod", goVersion)
	}
}
