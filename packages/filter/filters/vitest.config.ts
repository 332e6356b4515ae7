export { default } from "@blocklayer/test-config";
