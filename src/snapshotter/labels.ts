/** Labels that clients, image builders and we write on snapshots. Source: docs/containerd-nydus-grpc.md, "Labels". */

/** The chain id that a layer's snapshot shall be found by; there when a layer is unpacked. */
export const SNAPSHOT_REF = 'containerd.io/snapshot.ref'
const PREFIX = 'containerd.io/snapshot/'

/** Set by clients that pull for a remote snapshotter. */
export const CRI_IMAGE_REF = `${PREFIX}cri.image-ref`
export const CRI_MANIFEST_DIGEST = `${PREFIX}cri.manifest-digest`
export const CRI_LAYER_DIGEST = `${PREFIX}cri.layer-digest`
/** Digests of this layer and of those above it, separated by commas; cut short when they are many. */
export const CRI_IMAGE_LAYERS = `${PREFIX}cri.image-layers`
export const STARGZ_REFERENCE = `${PREFIX}remote/stargz.reference`
export const PULL_USERNAME = `${PREFIX}pullusername`
export const PULL_SECRET = `${PREFIX}pullsecret`
export const OVERLAY_VOLATILE = `${PREFIX}overlay.volatile`
export const UID_MAPPING = `${PREFIX}uidmapping`
export const GID_MAPPING = `${PREFIX}gidmapping`

/** Set by builders on layers. */
export const NYDUS_BLOB = `${PREFIX}nydus-blob`
export const NYDUS_BOOTSTRAP = `${PREFIX}nydus-bootstrap`
/** By eStargz's builders: digest of the layer's table of contents. */
export const STARGZ_TOC_DIGEST = `${PREFIX}stargz/toc.digest`
/** On a manifest: the image shall run from its tars. */
export const TARFS_HINT = `${PREFIX}tarfs-hint`
export const NYDUS_SIGNATURE = `${PREFIX}nydus-signature`

/** Set by the snapshotter. Values are never empty: containerd's own storage drops empty ones. */
export const NYDUS_TARFS = `${PREFIX}nydus-tarfs`
export const NYDUS_IMAGE_BLOCK = `${PREFIX}nydus-image-block`
export const NYDUS_LAYER_BLOCK = `${PREFIX}nydus-layer-block`
export const NYDUS_PROXY_MODE = `${PREFIX}nydus-proxy-mode`
export const NYDUS_INDEX_ALTERNATIVE = `${PREFIX}nydus-index-alternative`
export const STARGZ = `${PREFIX}stargz`
/** The image's other form, which `Detector` found: `index,sha256:…,12345` (or `referrer`), the bootstrap layer's digest and stored bytes. */
export const NYDUS_ALTERNATIVE = `${PREFIX}nydus-alternative`
