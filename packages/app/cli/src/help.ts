/** What `blk --help` says. */

export const HELP_HINT = (programName: string): string =>
  `Try '${programName} --help' for more information`;

/** The whole help: the commands as qemu-img spells them, and what the parameters mean. */
export function helpText(programName: string): string {
  return `usage: ${programName} [standard options] command [command options]
blocklayer's disk image tool: qemu-img's words

    -h, --help       show this help and exit
    -V, --version    show the version and exit

Commands:
  amend [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename
  bench [-c count] [-d depth] [--image-opts] [-f fmt] [--flush-interval=n [--no-drain]] [-i aio] [-o offset]
        [--pattern=byte] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename
  bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]]
         [-g granularity] [--image-opts] [-f fmt] filename bitmap
  check [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename
  commit [--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename
  compare [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2
  convert [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-U] [-C]
          [-c [--compression-level=level]] [-p] [-q] [-n] [-f fmt]
          [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options]
          [-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage]
          filename [filename2 [...]] output_filename
  create [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]
  info [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename
  io [--image-opts] [-c command]... [-f fmt] [-r] [-s] [-n] [-t cache] [-d discard] [-U] [filename]
  map [--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename
  measure [--output=ofmt] [-O output_fmt] [-o options] [-U]
          [--size N | [--image-opts] [-f fmt] [-l snapshot_param] filename]
  rebase [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename
  resize [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size
  snapshot [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename

Parameters:
  filename      a path, file:path, or json:{...} with the options of a block node
  fmt           the image format: qcow2 or raw; found by looking at the file when not given
  cache         none, writeback (default, except for convert), writethrough, directsync or
                unsafe (default for convert)
  size          bytes, or with a suffix: k M G T P E (powers of 1024)
  options       name=value, separated by commas; a comma in a value is written twice.
                -o help lists what a format takes
  ofmt          human or json
  snapshot      the name of an internal snapshot; for -a also its id
  snapshot_param
                an id or name, or snapshot.id=ID,snapshot.name=NAME
  prealloc      off, metadata, falloc or full

  -a            snapshot: make the disk what it was then
  -b, -B        the image that shows through where the new one has nothing; commit: the image to write into
  -c            compress (qcow2); snapshot: make one
  -C            try to copy without reading; falls back to reading
  -d            snapshot: delete the first one of that name; commit: leave the image as it is
  -l            convert, measure: the disk as it was in a snapshot; snapshot: list them
  -m            how many requests to keep in flight, 1 to 16 (default 8)
  --size        measure: the length of a disk without data
  -n            do not create the target: it exists
  -p            show progress
  -q            print nothing but errors
  -r            bytes a second at most
  -s            compare: sizes and allocation must be the same, too
  -S            how many zero bytes in a row make a hole (default 4k); 0: write them all
  -u            create, rebase: do not look at the backing file
  -U            open even if another program has the image open for writing
  -W            write out of order
  --compression-level
                how hard -c compresses: zlib 1 to 9 (default 6), zstd 1 to 22 (default 3)
  --shrink      resize: let go of what lies past the new end
  --salvage     go on after a read error, with zeroes in its place
`;
}
