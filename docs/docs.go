// Package docs holds the documents of the protocol that are for programs, for
// services that serve them and tests that read them.
package docs

import "embed"

// Files are openapi.yaml, the HTTP routes (OpenAPI 3.1), and asyncapi.yaml, the
// socket (AsyncAPI 3.0).
//
//go:embed openapi.yaml asyncapi.yaml
var Files embed.FS
