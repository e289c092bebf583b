/**
 * The backend room: bytes of blobs, wherever they are kept. Drivers and wrappers have one interface and are stacked at will, usually
 * `withRetry(withMetrics(withLimits(driver)))`.
 */
export type { Backend, BlobReader, ReadOptions } from './backend.ts'
export type { BackendErrorCode, BackendErrorOptions } from './errors.ts'
export { BackendError } from './errors.ts'
export type { HttpProxyOptions } from './http-proxy.ts'
export { httpProxyBackend, isRemote } from './http-proxy.ts'
export type { LimitOptions } from './limits.ts'
export { withLimits } from './limits.ts'
export type { LocalfsOptions } from './localfs.ts'
export { localfsBackend } from './localfs.ts'
export type { BackendMetricsJson } from './metrics.ts'
export { BackendMetrics, LATENCY_BUCKETS_MS, withMetrics } from './metrics.ts'
export type { RegistryBackendOptions } from './registry.ts'
export { registryBackend } from './registry.ts'
export type { RetryClock, RetryOptions } from './retry.ts'
export { withRetry } from './retry.ts'
