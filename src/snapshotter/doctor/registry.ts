import { join } from 'node:path'
import {
  anonymous,
  type CredentialSource,
  fromPassword,
  fromRegistryToken,
  parseReference,
  type Reference,
  referenceTarget,
  RegistryClient,
  RegistryError,
} from '../../registry/index.ts'
import { type Credential, Credentials, PasswordCredential } from '../credentials/index.ts'
import { type RegistryAccess, registryAccess } from '../detect/index.ts'
import { SnapshotterError } from '../errors.ts'
import { readTemplate } from '../registry-config.ts'
import { Findings } from './finding.ts'
import type { NodeFacts } from './node.ts'
import { deadlineSignal } from '../../kernel/index.ts'

const ASK_MS = 15_000
/** Tokens and certificates are not taken by a clock that is further off. */
const MOST_CLOCK_MS = 60_000
/** No package of this program is older. */
const OLDEST_NOW = Date.UTC(2026, 0, 1)

/** Whether the registry of an image answers, gives it to this node, and has the same time. */
export async function checkRegistry({ image, settings, signal }: NodeFacts): Promise<Findings[]> {
  const registry = new Findings('registry')
  const clock = new Findings('clock')
  if (Date.now() < OLDEST_NOW)
    clock.fail({ what: `the clock is wrong: ${new Date().toISOString()}`, fix: 'timedatectl set-ntp true' })
  if (image === undefined) {
    registry.skip('no image was given: --image registry.example/app:1')
    if (clock.all.length === 0)
      clock.ok(`the clock says ${new Date().toISOString()}; with --image it is compared with the registry's`)
    return [registry, clock]
  }
  const deadline = AbortSignal.any([signal, deadlineSignal(ASK_MS)])
  try {
    const reference = parseReference(image)
    const access = await accessOf(settings)
    const login = await loginFor(image, settings, deadline)
    await askManifest(registry, { reference, image, login, access, signal: deadline })
    await compareClocks(clock, { host: reference.host, access, signal: deadline })
  } catch (error) {
    if (error instanceof RegistryError) registry.fail({ what: error.message, fix: 'Write the image as HOST/NAME:TAG' })
    else if (error instanceof SnapshotterError)
      registry.fail({ what: error.message, fix: 'Correct what it names, and restart containerd-nydus-grpc' })
    else throw error
  }
  return [registry, clock]
}

/** As nydusd will speak to registries. Throws SnapshotterError 'BAD_CONFIG'. */
async function accessOf({ daemon, remote }: NodeFacts['settings']): Promise<RegistryAccess> {
  const of = { fsDriver: daemon.fsDriver, skipSslVerify: remote.skipSslVerify }
  return registryAccess(await readTemplate(daemon.configPath), of)
}

/** What the snapshotter would log in with. */
async function loginFor(
  image: string,
  settings: NodeFacts['settings'],
  signal: AbortSignal,
): Promise<Credential | undefined> {
  const quiet = { debug: (): void => undefined, info: (): void => undefined, warn: (): void => undefined }
  const auth = { ...settings.remote.auth, renewalIntervalMs: 0 }
  const credentials = await Credentials.open({
    settings: auth,
    directory: join(settings.root, 'credentials'),
    log: quiet,
  })
  try {
    return await credentials.find(image, new Map(), signal)
  } finally {
    await credentials.close()
  }
}

async function askManifest(
  found: Findings,
  of: {
    reference: Reference
    image: string
    login: Credential | undefined
    access: RegistryAccess
    signal: AbortSignal
  },
): Promise<void> {
  const { reference, image, login, access, signal } = of
  const client = new RegistryClient({ credentials: sourceOf(login), ...access, retry: { attempts: 1 } })
  const as =
    login === undefined
      ? 'without a login'
      : login instanceof PasswordCredential
        ? `as ${login.username}`
        : 'with a token'
  try {
    const { descriptor } = await client.repository(reference).manifest(referenceTarget(reference), { signal })
    found.ok(`${image} is there (${descriptor.digest}), asked ${as}`)
  } catch (error) {
    const isLogin = error instanceof RegistryError && (error.code === 'UNAUTHORIZED' || error.code === 'FORBIDDEN')
    const message = signal.aborted
      ? `${image}: the registry does not answer within ${ASK_MS / 1000} s`
      : (error as Error).message
    found.fail({
      what: `${message} (asked ${as})`,
      fix: isLogin
        ? `docker login ${reference.host}     # as the user that the snapshotter runs as, or choose a keychain under [remote.auth]`
        : `curl -v https://${reference.host}/v2/     # is it reachable, is its certificate known, is a proxy needed?`,
    })
  } finally {
    await client.close()
  }
}

function sourceOf(login: Credential | undefined): CredentialSource {
  if (login === undefined) return anonymous()
  return login instanceof PasswordCredential
    ? fromPassword(login.username, login.password)
    : fromRegistryToken(login.token)
}

/** Docker Hub is asked by another name than it has in references. */
function originsOf(host: string, { plainHttp }: RegistryAccess): string[] {
  if (host === 'docker.io') return ['https://registry-1.docker.io']
  const isHttp = plainHttp === 'fallback' || /^(?:localhost|127\.|\[::1\])/.test(host)
  return plainHttp === 'always' ? [`http://${host}`] : [`https://${host}`, ...(isHttp ? [`http://${host}`] : [])]
}

async function compareClocks(
  found: Findings,
  { host, access, signal }: { host: string; access: RegistryAccess; signal: AbortSignal },
): Promise<void> {
  for (const origin of originsOf(host, access)) {
    const answer = await fetch(`${origin}/v2/`, { method: 'HEAD', signal }).catch(() => undefined) // told by the check of the registry
    const theirs = Date.parse(answer?.headers.get('date') ?? '')
    if (Number.isNaN(theirs)) continue
    const differenceMs = Date.now() - theirs
    if (Math.abs(differenceMs) <= MOST_CLOCK_MS) return found.ok(`the clock agrees with that of ${host}`)
    return found.warn({
      what: `the clock is ${Math.round(Math.abs(differenceMs) / 1000)} s ${differenceMs > 0 ? 'ahead of' : 'behind'} that of ${host}: tokens and certificates may be refused`,
      fix: 'timedatectl set-ntp true && timedatectl status',
    })
  }
  found.skip(`${host} does not tell its time`)
}
