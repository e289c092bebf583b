import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { SnapshotterError } from '../../errors.ts'

/** A file, or its content as it stands in the configuration (PEM or a token). Files are read at each use: certificates and tokens are rotated. */
export type FileOrText = { readonly path: string } | { readonly text: string }

/** A program that gives tokens or certificates. Source: Kubernetes, "client-go credential plugins". */
export interface ExecLogin {
  readonly apiVersion: string
  readonly command: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

/** The API server, and who we are there. */
export interface KubeAccess {
  readonly server: URL
  readonly ca: FileOrText | undefined
  readonly skipVerify: boolean
  /** Name in the server's certificate, where it is not the address. */
  readonly serverName: string | undefined
  readonly certificate: { readonly cert: FileOrText; readonly key: FileOrText } | undefined
  readonly login:
    | { readonly kind: 'none' }
    | { readonly kind: 'token'; readonly token: FileOrText }
    | { readonly kind: 'password'; readonly username: string; readonly password: string }
    | { readonly kind: 'exec'; readonly exec: ExecLogin }
}

export interface KubeConfigOptions {
  /** `remote.auth.kubeconfig_path`; '': as kubectl looks for it, else the pod's own account. */
  readonly path: string
  readonly env: NodeJS.ProcessEnv
  /** Folder of a pod's own account. */
  readonly podAccount?: string
}

type Fields = Readonly<Record<string, unknown>>

const POD_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
const MAX_FILE_BYTES = 4 << 20

/**
 * Finds the configuration as kubectl does: the given file; else those that `$KUBECONFIG` names, the first that has an entry counting; else `~/.kube/config`; else, in a pod, the pod's own account. Throws SnapshotterError
 * 'BAD_CONFIG' that names file and field.
 */
export async function loadKubeAccess(options: KubeConfigOptions): Promise<KubeAccess> {
  const { path, env } = options
  const named = (env['KUBECONFIG'] ?? '').split(':').filter((each) => each !== '')
  const paths = path !== '' ? [path] : named.length > 0 ? named : [join(env['HOME'] ?? homedir(), '.kube/config')]
  const documents: { readonly path: string; readonly fields: Fields }[] = []
  for (const each of paths) {
    const fields = await readDocument(each, path !== '')
    if (fields !== undefined) documents.push({ path: each, fields })
  }
  if (documents.length > 0) return accessOf(documents)
  const pod = podAccess(options)
  if (pod !== undefined) return pod
  throw bad(paths.join(', '), 'there is no such file; set remote.auth.kubeconfig_path, or KUBECONFIG in the service')
}

function bad(path: string, why: string, cause?: unknown): SnapshotterError {
  return new SnapshotterError('BAD_CONFIG', `cannot use kubeconfig ${path}: ${why}`, { cause })
}

/** Undefined for one that is not there, unless it must be. */
async function readDocument(path: string, isRequired: boolean): Promise<Fields | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && !isRequired) return undefined
    throw bad(path, code ?? 'it cannot be read', error)
  }
  if (text.length > MAX_FILE_BYTES) throw bad(path, `it is larger than ${MAX_FILE_BYTES} bytes`)
  const { parse } = await import('yaml')
  let value: unknown
  try {
    value = parse(text)
  } catch {
    throw bad(path, 'it is neither YAML nor JSON') // the parser's message quotes the text, which may hold secrets
  }
  return fieldsOf(value) ?? {}
}

function accessOf(documents: readonly { readonly path: string; readonly fields: Fields }[]): KubeAccess {
  const all = documents.map(({ path }) => path).join(', ')
  const current = documents
    .map(({ fields }) => fields['current-context'])
    .find((name) => typeof name === 'string' && name !== '')
  if (typeof current !== 'string')
    throw bad(all, 'current-context is not set; choose one: kubectl config use-context NAME')
  /** The entry of a list, and the folder that its paths are relative to. */
  const entry = (list: string, kind: string, name: unknown): { readonly value: Fields; readonly folder: string } => {
    for (const { path, fields } of documents) {
      const entries = Array.isArray(fields[list]) ? (fields[list] as unknown[]) : []
      const found = entries.map(fieldsOf).find((each) => each?.['name'] === name)
      if (found !== undefined) return { value: fieldsOf(found[kind]) ?? {}, folder: dirname(resolve(path)) }
    }
    throw bad(all, `${list} has no entry named ${JSON.stringify(name)?.slice(0, 100)}`)
  }
  const context = entry('contexts', 'context', current).value
  const cluster = entry('clusters', 'cluster', context['cluster'])
  const user =
    context['user'] === undefined || context['user'] === '' ? undefined : entry('users', 'user', context['user'])
  return {
    ...clusterOf(cluster.value, cluster.folder, (why) => bad(all, why)),
    ...userOf(user?.value ?? {}, user?.folder ?? '/', (why) => bad(all, why)),
  }
}

type ClusterAccess = Pick<KubeAccess, 'server' | 'ca' | 'skipVerify' | 'serverName'>

function clusterOf(cluster: Fields, folder: string, wrong: (why: string) => SnapshotterError): ClusterAccess {
  const server = URL.parse(text(cluster, 'server'))
  if (server === null || !/^https?:$/.test(server.protocol) || server.username !== '' || server.search !== '')
    throw wrong('server of the cluster must be https://HOST[:PORT][/PATH]')
  if (text(cluster, 'proxy-url') !== '')
    throw wrong('proxy-url is not supported; make the API server reachable without a proxy')
  return {
    server,
    ca: fileOrText(cluster, 'certificate-authority', folder, wrong),
    skipVerify: cluster['insecure-skip-tls-verify'] === true,
    serverName: text(cluster, 'tls-server-name') || undefined,
  }
}

function userOf(
  user: Fields,
  folder: string,
  wrong: (why: string) => SnapshotterError,
): Pick<KubeAccess, 'certificate' | 'login'> {
  const cert = fileOrText(user, 'client-certificate', folder, wrong)
  const key = fileOrText(user, 'client-key', folder, wrong)
  if ((cert === undefined) !== (key === undefined))
    throw wrong('client-certificate and client-key of the user belong together')
  if (user['auth-provider'] !== undefined)
    throw wrong('auth-provider was removed from Kubernetes; use exec, or a token')
  return { certificate: cert && key && { cert, key }, login: loginOf(user, folder, wrong) }
}

function loginOf(user: Fields, folder: string, wrong: (why: string) => SnapshotterError): KubeAccess['login'] {
  const exec = fieldsOf(user['exec'])
  if (exec !== undefined) return { kind: 'exec', exec: execOf(exec, folder, wrong) }
  const tokenFile = text(user, 'tokenFile')
  if (tokenFile !== '') return { kind: 'token', token: { path: resolve(folder, tokenFile) } }
  if (text(user, 'token') !== '') return { kind: 'token', token: { text: text(user, 'token') } }
  if (text(user, 'username') !== '')
    return { kind: 'password', username: text(user, 'username'), password: text(user, 'password') }
  return { kind: 'none' }
}

function execOf(exec: Fields, folder: string, wrong: (why: string) => SnapshotterError): ExecLogin {
  const command = text(exec, 'command')
  if (command === '' || command.includes('\0')) throw wrong('exec of the user has no command')
  const apiVersion = text(exec, 'apiVersion')
  if (!/^client\.authentication\.k8s\.io\/v1(?:beta1)?$/.test(apiVersion))
    throw wrong('apiVersion of exec must be client.authentication.k8s.io/v1 or v1beta1')
  if (text(exec, 'interactiveMode') === 'Always')
    throw wrong('exec of the user asks a person (interactiveMode: Always)')
  const args = Array.isArray(exec['args']) ? (exec['args'] as unknown[]).map(String) : []
  const env = (Array.isArray(exec['env']) ? (exec['env'] as unknown[]) : [])
    .map((each) => fieldsOf(each) ?? {})
    .map((each) => [text(each, 'name'), text(each, 'value')] as const)
  // As client-go: a name with a slash is relative to the file, one without is looked for in PATH.
  const path = command.includes('/') && !isAbsolute(command) ? resolve(folder, command) : command
  return { apiVersion, command: path, args, env: Object.fromEntries(env.filter(([name]) => name !== '')) }
}

function podAccess({ env, podAccount = POD_ACCOUNT }: KubeConfigOptions): KubeAccess | undefined {
  const [host, port] = [env['KUBERNETES_SERVICE_HOST'] ?? '', env['KUBERNETES_SERVICE_PORT'] ?? '']
  const server =
    host === '' || port === '' ? null : URL.parse(`https://${host.includes(':') ? `[${host}]` : host}:${port}`)
  if (server === null) return undefined
  return {
    server,
    ca: { path: join(podAccount, 'ca.crt') },
    skipVerify: false,
    serverName: undefined,
    certificate: undefined,
    login: { kind: 'token', token: { path: join(podAccount, 'token') } },
  }
}

/** `name`, a path, or `name-data`, base64 of the content; the latter counts when both are there, as with kubectl. */
function fileOrText(
  of: Fields,
  name: string,
  folder: string,
  wrong: (why: string) => SnapshotterError,
): FileOrText | undefined {
  const data = text(of, `${name}-data`)
  if (data !== '') {
    if (!/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(data)) throw wrong(`${name}-data is not base64`)
    return { text: Buffer.from(data, 'base64').toString('utf8') }
  }
  const path = text(of, name)
  return path === '' ? undefined : { path: resolve(folder, path) }
}

function text(of: Fields, name: string): string {
  const value = of[name]
  return typeof value === 'string' ? value : ''
}

function fieldsOf(value: unknown): Fields | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined // checked
}
