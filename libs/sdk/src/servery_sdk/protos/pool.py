"""The descriptor pool of our stubs, apart from the default one, in which ``kserve`` or ``tritonclient`` may be."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
