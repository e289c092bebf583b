import { push } from '../../src/convert/testing.ts'
import { type Descriptor, MEDIA_TYPES, type Repository } from '../../src/registry/index.ts'
import type { ImageName, Images, TestImage } from './images.ts'

const MAX_CONFIG_BYTES = 1 << 20

/** Images with the same layers and a name and a digest each: containerd takes them for different ones. */
export async function variantsOf(images: Images, name: ImageName, count: number): Promise<TestImage[]> {
  const { sums } = await images.image(name)
  const repository = images.repository(name)
  const manifest = JSON.parse(Buffer.from((await repository.manifest(name)).bytes).toString()) as { config: Descriptor }
  const bytes = await repository.blob(manifest.config.digest, MAX_CONFIG_BYTES, {})
  const config = JSON.parse(Buffer.from(bytes).toString()) as { config?: object }
  const variants: TestImage[] = []
  for (let index = 0; index < count; index += 1) {
    const tag = `${name}-variant-${index}`
    const changed = Buffer.from(JSON.stringify({ ...config, config: { ...config.config, Labels: { variant: tag } } }))
    const document = { ...manifest, config: { ...manifest.config, ...(await push(repository, changed)) } }
    await repository.pushManifest(tag, Buffer.from(JSON.stringify(document)), MEDIA_TYPES.ociManifest)
    variants.push({ reference: images.reference(tag), sums })
  }
  return variants
}

/** The same image under another tag of its repository, without its layers' annotations. */
export async function pushUnmarked(repository: Repository, tag: string): Promise<void> {
  const { bytes } = await repository.manifest(repository.reference.tag ?? '')
  const manifest = JSON.parse(Buffer.from(bytes).toString()) as { layers: Descriptor[] }
  const layers = manifest.layers.map(({ mediaType: type, digest, size }) => ({ mediaType: type, digest, size }))
  await repository.pushManifest(tag, Buffer.from(JSON.stringify({ ...manifest, layers })), MEDIA_TYPES.ociManifest)
}
