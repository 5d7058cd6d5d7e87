// Package e2e tests a whole service through its exported API: what goes wrong and what
// clients then receive, limits under load, dead peers, and random use of the engine.
package e2e
