// Package container takes a pod in and runs its containers in a network namespace
// as kubelet and a container runtime would: with the command line, environment,
// user, capabilities, read-only file system and volumes of the pod.
//
// This machine stands in for the images, unless one is given: its programs are
// those of the containers, and its file system is their root. A killed process
// leaves nothing behind: a container dies with whoever started it, and its mounts
// are its own.
//
// A program that starts containers calls Main first, in main or in TestMain: Start
// runs that same program again, which then becomes the container. Seccomp profiles
// and limits are not applied. It takes root, and works on Linux (5.12 or newer)
// only; elsewhere the package is empty.
package container
