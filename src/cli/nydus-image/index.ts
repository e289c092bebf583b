/** `nydus-image`: builds, merges, checks and inspects RAFS images, with the original's command line. */
import { main } from './main.ts'

void main(process.argv.slice(2))
