/** The configuration of one image: the template, the image's registry, its mirrors and its login. */
import { SnapshotterError } from '../errors.ts'
import type { Labels } from '../snapshot.ts'
import { type ConfigTemplate, type Credential, writePrivately } from './config-template.ts'
import { type ImageRequest, imageKey, registryOf } from './image-request.ts'
import type { DaemonSettings } from './settings.ts'

/** Where logins come from. Undefined = nobody has one: the registry is asked without. */
export interface CredentialLookup {
  find(reference: string, labels: Labels, signal: AbortSignal): Promise<Credential | undefined>
}

/** Keys of nydusd's registry backend that say where else a registry's blobs are: `mirrors`, or another `host` with its `scheme`. */
export interface MirrorLookup {
  find(host: string, signal: AbortSignal): Promise<Readonly<Record<string, unknown>> | undefined>
}

export interface ConfigSources {
  readonly settings: DaemonSettings
  readonly template: ConfigTemplate
  readonly credentials: CredentialLookup
  readonly mirrors: MirrorLookup | undefined
}

/** Writes the configuration of an image. Throws SnapshotterError. */
export async function writeImageConfig(
  path: string,
  request: ImageRequest,
  { settings, template, credentials, mirrors }: ConfigSources,
  signal: AbortSignal,
): Promise<void> {
  const { reference, labels, snapshot, idMapping } = request
  const isRegistry = template.backendType === 'registry'
  const registry =
    reference !== '' ? registryOf(reference) : isRegistry ? template.written : { host: '', repository: '' }
  if (isRegistry && (registry.host === '' || registry.repository === ''))
    throw new SnapshotterError(
      'FAILED_PRECONDITION',
      `failed to find image ref of snapshot ${snapshot.key}: its layer was committed without labels; pull the image by CRI, nerdctl or Docker, or with "ctr images pull" of containerd 2.1 (docs/troubleshooting.md)`,
    )
  const isAsked = isRegistry && reference !== ''
  const [credential, backend] = await Promise.all([
    isAsked ? credentials.find(reference, labels, signal) : undefined,
    isAsked ? mirrors?.find(registry.host, signal) : undefined,
  ])
  const document = template.render({
    key: imageKey(snapshot.id, idMapping),
    ...registry,
    credential,
    backend: backend ?? {},
    cacheDirectory: settings.cache.dir,
    cacheBytes: settings.cache.quotaBytes,
    idMapping: idMapping && [idMapping.container, idMapping.host, idMapping.size],
  })
  await writePrivately(path, JSON.stringify(document))
}
