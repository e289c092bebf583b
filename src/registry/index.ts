/**
 * The registry room: a client for OCI registries, and an embedded registry for demos, tests and small sites.
 * `RegistryClient` holds connections and logins; `client.repository(parseReference(text))` is what the other rooms work with.
 * Other servers of blobs are asked with the same means: `Http` for exchanges, `RangeFill` for what their answers must be.
 */
export type { HttpOptions } from './agents.ts'
export { RangeFill } from './blob-range.ts'
export { checkCertificates } from './certificates.ts'
export type { ClientOptions, RepositoryOptions } from './client.ts'
export { RegistryClient } from './client.ts'
export type { Credentials, CredentialSource } from './credentials.ts'
export { anonymous, fromBase64, fromIdentityToken, fromPassword, fromRegistryToken, splitBasic } from './credentials.ts'
export type { Digest } from './digest.ts'
export { digestHex, digestOf, parseDigest, RunningDigest, sha256Digest } from './digest.ts'
export type { DockerConfigOptions } from './docker-config.ts'
export { fromDockerConfig } from './docker-config.ts'
export type { RegistryErrorCode } from './errors.ts'
export { RegistryError } from './errors.ts'
export type { ProxyOptions } from './forward-proxy.ts'
export { isProxyUrl } from './forward-proxy.ts'
export { isPeerFailure, isProxyThrottle } from './proxy-refusal.ts'
export type { BodySink, HttpAnswer, HttpHeaders, HttpRequest } from './http.ts'
export { Http } from './http.ts'
export type { Descriptor, ImageConfig, ImageIndex, ImageManifest, ParsedManifest, Platform } from './manifest.ts'
export { MEDIA_TYPES, parseImageConfig, parseManifest } from './manifest.ts'
export type { Mirror } from './mirrors.ts'
export { formatPlatform, hostPlatform, parsePlatform, samePlatform, selectPlatform } from './platform.ts'
export type { Reference } from './reference.ts'
export { formatReference, isTag, normalHost, parseReference, referenceTarget } from './reference.ts'
export type {
  BlobSource,
  BlobStreamOptions,
  Manifest,
  ManifestOptions,
  RangeOptions,
  Repository,
  RequestOptions,
  UploadOptions,
  UploadResult,
} from './repository.ts'
export type { Clock, RetryPolicy } from './retry.ts'
export type { Fault, FaultMatch, PlannedFault, RouteName } from './server/faults.ts'
export type { RouteCount } from './server/counters.ts'
export type { RegistryServer, RegistryServerOptions } from './server/registry-server.ts'
export { retryAfterMs, worthRetry } from './retry.ts'
export type { ServerAuth } from './server/server-auth.ts'
export { startRegistry } from './server/registry-server.ts'
export type { PlainHttp } from './endpoint.ts'
