import { SnapshotterError } from '../errors.ts'

type Json = Record<string, unknown>
const NAME = 'nydus'

/** Docker's daemon.json, told to use the snapshotter. Throws SnapshotterError 'BAD_CONFIG'. */
export function withDockerKeys(text: string | undefined, path: string): string {
  const value = objectIn(text ?? '{}', path)
  const features = asObject(value['features'])
  if (features?.['containerd-snapshotter'] === true && value['storage-driver'] === NAME) return text ?? ''
  const after = { ...value, features: { ...features, 'containerd-snapshotter': true }, 'storage-driver': NAME }
  return `${JSON.stringify(after, undefined, 2)}\n`
}

/** The same without what we said, where it still says so. */
export function withoutDockerKeys(text: string, path: string): string {
  const { 'storage-driver': driver, features, ...rest } = objectIn(text, path)
  const { 'containerd-snapshotter': own, ...others } = asObject(features) ?? {}
  const isOurs = driver === NAME
  const after = {
    ...rest,
    ...(isOurs ? {} : { 'storage-driver': driver }),
    ...(Object.keys(others).length > 0 || !isOurs
      ? { features: isOurs ? others : { ...others, 'containerd-snapshotter': own } }
      : {}),
  }
  return `${JSON.stringify(after, undefined, 2)}\n`
}

function objectIn(text: string, path: string): Json {
  let value: unknown
  try {
    value = JSON.parse(text.trim() === '' ? '{}' : text)
  } catch (error) {
    throw new SnapshotterError('BAD_CONFIG', `cannot use ${path}: it is no JSON: ${(error as Error).message}`, {
      cause: error,
    })
  }
  const object = asObject(value)
  if (object === undefined) throw new SnapshotterError('BAD_CONFIG', `cannot use ${path}: it must be a JSON object`)
  return object
}

function asObject(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined // an object is a table of values
}
