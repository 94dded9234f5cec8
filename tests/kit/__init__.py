"""What tests of several folders share: each module is named after what it gives."""
