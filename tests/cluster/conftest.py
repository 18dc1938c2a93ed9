from tests.session.conftest import blob_files, new_session, quick

__all__ = ["blob_files", "new_session", "quick"]
