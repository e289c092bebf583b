/** `nydusify`: converts images to Nydus, checks and mounts them, with the original's command line. */
import { main } from './main.ts'

void main(process.argv.slice(2))
