package docs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// BrokenLinks describes each link of docs to a file below root, or to a heading in
// one, that does not exist. It follows no links to other sites.
func BrokenLinks(root string, docs []Document) (broken []string) {
	anchors := make(map[string][]string)
	for _, d := range docs {
		anchors[d.Path] = []string{}
		for _, h := range d.Headings() {
			anchors[d.Path] = append(anchors[d.Path], h.Anchor)
		}
	}
	for _, d := range docs {
		for _, l := range d.Links() {
			complain := func(what string) {
				broken = append(broken, fmt.Sprintf("%s:%d: link to %s: %s", d.Path, l.Line, l.To, what))
			}
			if strings.Contains(l.To, "://") || strings.HasPrefix(l.To, "mailto:") {
				continue
			}
			file, anchor, named := strings.Cut(l.To, "#")
			to := d.Path
			if file != "" {
				to = path.Join(path.Dir(d.Path), file)
			}
			if to == ".." || strings.HasPrefix(to, "../") || path.IsAbs(file) {
				complain("not in this repository")
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); file != "" && err != nil {
				complain("no such file")
				continue
			}
			if known, isDocument := anchors[to]; named && isDocument && !slices.Contains(known, anchor) {
				complain("no such heading")
			}
		}
	}
	return broken
}
