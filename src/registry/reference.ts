import { isIPv6 } from 'node:net'
import type { Digest } from './digest.ts'
import { parseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'

/**
 * An image reference, normalised as Docker does: `node` is `docker.io/library/node`. `tag` is absent when only a digest was given;
 * with neither it is `latest`.
 */
export interface Reference {
  /** Registry as people write it, with the port if one was given: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly host: string
  /** Path in the registry: `library/node`. */
  readonly repository: string
  readonly tag: string | undefined
  readonly digest: Digest | undefined
}

const DOCKER_HUB = 'docker.io'
/** The host that answers for Docker Hub is not the one in its name. */
const DOCKER_HUB_ENDPOINT = 'registry-1.docker.io'
/** Distribution specification: repository name at most 255 bytes with the host, tag at most 128. */
const MAX_NAME = 255
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const DOMAIN_LABEL = /^(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])$/

/** Parses `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. Throws RegistryError 'BAD_REFERENCE' that shows the offending part. */
export function parseReference(text: string): Reference {
  if (text === '') throw bad(text, 'it is empty')
  if (/^[a-z]+:\/\//i.test(text)) throw bad(text, `leave out ${JSON.stringify(text.slice(0, text.indexOf('//') + 2))}`)
  const at = text.indexOf('@')
  const named = at < 0 ? text : text.slice(0, at)
  const digest = at < 0 ? undefined : referenceDigest(text, text.slice(at + 1))
  const slash = named.indexOf('/')
  const first = slash < 0 ? '' : named.slice(0, slash)
  const hasHost = slash >= 0 && (/[.:[]/.test(first) || first === 'localhost' || first !== first.toLowerCase())
  const host = hasHost ? checkHost(text, first) : DOCKER_HUB
  const rest = hasHost ? named.slice(slash + 1) : named
  const colon = rest.lastIndexOf(':')
  const tag = colon < 0 ? undefined : rest.slice(colon + 1)
  if (tag !== undefined && !TAG.test(tag))
    throw bad(text, `tag ${JSON.stringify(tag)} must be 1 to 128 of letters, digits, "_", "." and "-"`)
  const repository = fullRepository(text, host, colon < 0 ? rest : rest.slice(0, colon))
  return { host: normalHost(host), repository, tag: tag ?? (digest === undefined ? 'latest' : undefined), digest }
}

/** The reference in full, as `parseReference` takes it back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`
  return `${reference.host}/${reference.repository}${tag}${digest}`
}

/** What to ask the registry for: the digest where there is one, else the tag. */
export function referenceTarget(reference: Reference): string {
  return reference.digest ?? reference.tag ?? 'latest'
}

/** The host (and port) that answers for this registry: only Docker Hub differs from its name. */
export function endpointHost(host: string): string {
  return host === DOCKER_HUB ? DOCKER_HUB_ENDPOINT : host
}

/** True for `localhost`, `127.0.0.0/8` and `::1`, with any port. */
export function isLoopback(host: string): boolean {
  const name = host.startsWith('[') ? host.slice(1, host.indexOf(']')) : host.replace(/:\d+$/, '')
  return name === 'localhost' || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name)
}

/** True for a repository path that the distribution specification allows (without a host). */
export function isRepositoryName(name: string): boolean {
  return name.length <= MAX_NAME && name.split('/').every((component) => COMPONENT.test(component))
}

/** True for a tag that the distribution specification allows. */
export function isTag(text: string): boolean {
  return TAG.test(text)
}

function referenceDigest(text: string, digest: string): Digest {
  try {
    return parseDigest(digest)
  } catch (error) {
    throw new RegistryError(
      'BAD_REFERENCE',
      `cannot use image reference ${JSON.stringify(text)}: ${(error as Error).message}`,
      { cause: error },
    )
  }
}

function checkHost(text: string, host: string): string {
  const bracket = host.startsWith('[') ? host.indexOf(']') : -1
  const colon = host.indexOf(':', bracket + 1)
  const name = colon < 0 ? host : host.slice(0, colon)
  if (colon >= 0) {
    const port = host.slice(colon + 1)
    if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535)
      throw bad(text, `port ${JSON.stringify(port)} must be 1 to 65535`)
  }
  const valid =
    bracket > 0
      ? bracket === name.length - 1 && isIPv6(name.slice(1, -1))
      : name.split('.').every((label) => DOMAIN_LABEL.test(label))
  if (!valid) throw bad(text, `host ${JSON.stringify(name)} is neither a domain name nor an address`)
  return host
}

/** A registry as references name it: Docker Hub goes by three names, this gives `docker.io`. */
export function normalHost(host: string): string {
  return host === 'index.docker.io' || host === DOCKER_HUB_ENDPOINT ? DOCKER_HUB : host
}

function fullRepository(text: string, host: string, path: string): string {
  for (const component of path.split('/')) {
    if (!COMPONENT.test(component)) {
      throw bad(
        text,
        `${JSON.stringify(component)} must be lower-case letters and digits, joined by ".", "_", "__" or "-"`,
      )
    }
  }
  const repository = normalHost(host) === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path
  if (repository.length + host.length + 1 > MAX_NAME)
    throw bad(text, `the name has ${repository.length + host.length + 1} characters, ${MAX_NAME} are allowed`)
  return repository
}

function bad(text: string, why: string): RegistryError {
  const shown = text.length > 300 ? `${text.slice(0, 300)}…` : text
  return new RegistryError('BAD_REFERENCE', `cannot use image reference ${JSON.stringify(shown)}: ${why}`)
}
