import { fromBinary } from '@bufbuild/protobuf'
import { type CallWatcher, ImageService, ServiceForwarder } from '../../containerd/index.ts'
import { type Credential, credentialOf, credentialOfBase64, TokenCredential } from './credential.ts'
import { parsedReference } from './image-name.ts'
import type { CredentialLog } from './provider.ts'
import type { Pull, PullCredentials } from './pull-credentials.ts'

export interface ImageProxyOptions {
  /** Socket of the runtime's own image service. */
  readonly address: string
  readonly credentials: PullCredentials
  readonly log: CredentialLog
}

/**
 * CRI's image service on our socket, for the kubelet: all calls go on to the runtime as they are. Of pulls the credentials are noted before the runtime hears of them, and
 * forgotten when it has removed the image.
 */
export function imageProxy({ address, credentials, log }: ImageProxyOptions): ServiceForwarder {
  return new ServiceForwarder({
    name: ImageService.typeName,
    path: address,
    watch: (method) => {
      if (method === ImageService.method.pullImage.name) return watchPull(credentials, log)
      if (method === ImageService.method.removeImage.name) return watchRemoval(credentials)
      return undefined
    },
  })
}

function watchPull(credentials: PullCredentials, log: CredentialLog): CallWatcher {
  let pull: Pull | undefined
  let imageId = ''
  return {
    request: (message) => {
      const request = read(() => pullRequest(message))
      if (request === undefined || pull !== undefined) return // the runtime answers what it thinks of it
      const reference = request.image?.image ?? ''
      const credential = request.auth && credentialOfAuth(request.auth, reference, log)
      pull = credentials.begin(reference, credential)
    },
    response: (message) => {
      imageId = read(() => fromBinary(ImageService.method.pullImage.output, message))?.imageRef ?? ''
    },
    ended: (isOk) => (isOk ? pull?.succeeded(imageId) : pull?.failed()),
  }
}

function watchRemoval(credentials: PullCredentials): CallWatcher {
  let name = ''
  return {
    request: (message) => {
      name = read(() => fromBinary(ImageService.method.removeImage.input, message))?.image?.image ?? ''
    },
    ended: (isOk) => {
      if (isOk) credentials.removed(name)
    },
  }
}

type Auth = NonNullable<ReturnType<typeof pullRequest>['auth']>
const pullRequest = (message: Uint8Array) => fromBinary(ImageService.method.pullImage.input, message)

/** In the order of containerd's CRI: user and password, tokens, base64 of both. Those for another registry are not for this image. */
function credentialOfAuth(auth: Auth, reference: string, log: CredentialLog): Credential | undefined {
  const image = parsedReference(reference)
  if (image === undefined || (auth.serverAddress !== '' && registryOf(auth.serverAddress) !== image.host))
    return undefined
  if (auth.username !== '') return credentialOf(auth.username, auth.password)
  if (auth.identityToken !== '') return new TokenCredential(auth.identityToken)
  if (auth.registryToken !== '') return new TokenCredential(auth.registryToken)
  if (auth.auth === '') return undefined
  const found = credentialOfBase64(auth.auth)
  if (found === undefined)
    log.warn(`the credentials of a pull of ${reference} are not used: auth is not base64 of "user:password"`)
  return found
}

/** The registry as references name it, of a server's address such as `https://index.docker.io/v1/`. */
function registryOf(address: string): string | undefined {
  const authority = address.replace(/^[a-z]+:\/\//i, '').split('/', 1)[0] ?? ''
  return parsedReference(`${authority}/x`)?.host
}

/** Undefined for what is no such message. */
function read<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch {
    return undefined // it goes on as it is: whether it can be used is for the runtime to say
  }
}
