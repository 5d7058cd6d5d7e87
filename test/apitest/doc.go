// Package apitest holds docs/openapi.yaml and docs/asyncapi.yaml to the running
// server: what real programs answer and send is checked against them, and whatever
// they describe has to come up at least once. Fields and headers that they do not
// describe are findings here, though clients are told to pass over them.
package apitest
