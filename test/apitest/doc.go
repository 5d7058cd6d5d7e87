// Package apitest compares docs/openapi.yaml and docs/asyncapi.yaml with running servers: it
// checks every answer and event of real programs against them, and everything that they
// describe must occur at least once. Fields and headers that they do not describe are
// findings here, although clients should ignore them.
package apitest
