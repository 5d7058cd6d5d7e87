// Package docs contains the descriptions of the protocol for programs, so that
// services can serve them and tests can read them.
package docs

import "embed"

// Files contains openapi.yaml, the HTTP routes (OpenAPI 3.1), and asyncapi.yaml, the
// socket (AsyncAPI 3.0).
//
//go:embed openapi.yaml asyncapi.yaml
var Files embed.FS
