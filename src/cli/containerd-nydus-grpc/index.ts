/** `containerd-nydus-grpc`: the snapshotter, with upstream's command line. */
import { main } from './main.ts'

void main(process.argv.slice(2))
